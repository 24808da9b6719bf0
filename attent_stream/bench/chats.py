"""Prompts and answers of a task of conversations."""

from pathlib import Path

import numpy as np

from attent_stream.bench.documents import read_records
from attent_stream.bench.settings import ChatData
from attent_stream.corpus.errors import require

Record = dict[str, str]
_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_THINGS = ("apples", "books", "coins", "pens", "shells", "stamps")


def chats_of(settings: ChatData, data: Path | None) -> tuple[list[Record], list[Record]]:
    """Draw what is trained on, and what is held out.

    Args:
        settings: The task's conversations.
        data: Folder of the sources. None: sums are made up.

    Raises:
        CorpusError: A source is missing, or has too few.
    """
    rng = np.random.default_rng(settings.seed)
    wanted = {"train": settings.samples, "test": settings.held_out}
    if data is None:
        made = sums(sum(wanted.values()), rng)
        return made[: settings.samples], made[settings.samples :]
    drawn = []
    for split, count in wanted.items():
        path = data / f"{settings.source}.{split}.jsonl.zst"
        found = read_records(path)
        require(len(found) >= count, f"{path} has {len(found)} records, {count} are asked for")
        drawn.append([found[at] for at in rng.permutation(len(found))[:count]])
    return drawn[0], drawn[1]


def sums(count: int, rng: np.random.Generator) -> list[Record]:
    """Different sums in words, with what leads to the result."""
    made: dict[str, Record] = {}
    while len(made) < count:
        name, thing = str(rng.choice(_NAMES)), str(rng.choice(_THINGS))
        first, more, times = (int(one) for one in rng.integers(2, 40, size=3))
        prompt = (
            f"{name} has {first} {thing} and gets {more} more. Then {name} gets {times} times as "
            f"many as that. How many {thing} does {name} have?"
        )
        has = first + more
        answer = (
            f"{name} has {first} + {more} = {has} {thing} first.\n"
            f"Then {name} gets {times} * {has} = {times * has}.\n#### {has + times * has}"
        )
        made[prompt] = {"prompt": prompt, "answer": answer}
    return list(made.values())
