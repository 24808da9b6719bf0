"""Read the documents of a text task, clean them, and add noise."""

import io
import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from attent_stream.corpus.errors import require

SHORTEST = 200  # Characters of a clean document.
RUN = 32  # Words of a run that is looked up for copies.
# Written for this benchmark.
BOILERPLATE = (
    "All rights reserved. Reproduction without permission is not allowed.",
    "Click here to subscribe to our newsletter and never miss an update again.",
    "We use cookies to improve your experience. By going on you accept our use of cookies.",
    "Home | About | Contact | Terms of use | Privacy | Site map",
    "Please enable JavaScript in your browser to see this page as it was meant.",
    "Share this: e-mail, print, more. Like this: loading ...",
    "You must be logged in to post a comment. Log in or register.",
    "Posted in Uncategorized. Tagged with news. Leave a reply. Previous. Next.",
)


def read_jsonl(
    path: Path,
    megabytes: float,
    rng: np.random.Generator,
    longest: int | None = None,
    more: int = 0,
) -> list[str]:
    """Read documents of a .jsonl.zst in random order.

    Args:
        path: A file of JSON objects with a key ``text``, one a line.
        megabytes: Amount of text in 1e6 bytes of UTF-8; the last document exceeds it.
        rng: Draws the order.
        longest: Cut documents to this number of characters.
        more: Documents to return after those.

    Raises:
        CorpusError: The file is missing, or has fewer than ``more`` documents after those.
    """
    texts = [record["text"][:longest] for record in read_records(path)]
    drawn = [texts[i] for i in rng.permutation(len(texts))]
    taken = list(first(drawn, megabytes))
    rest = drawn[len(taken) : len(taken) + more]
    require(len(rest) == more, f"expected {more} more documents in {path.name}, got {len(rest)}")
    return taken + rest


def read_records(path: Path) -> list[dict]:
    """Read the JSON objects of a .jsonl.zst, one a line.

    Raises:
        CorpusError: The file is missing.
    """
    import zstandard

    require(path.is_file(), f"the data folder has no {path.name}")
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as raw:
        return [json.loads(line) for line in io.TextIOWrapper(raw, "utf-8")]


def first(texts: Iterable[str], megabytes: float) -> Iterator[str]:
    """Yield texts until they reach ``megabytes``."""
    left = megabytes * 1e6
    for text in texts:
        if left <= 0:
            return
        yield text
        left -= len(text.encode())


def clean(documents: Iterable[str]) -> Iterator[str]:
    """Drop short documents, and those with half of their 32-word runs in earlier documents."""
    seen: set[bytes] = set()
    for text in documents:
        if len(text) < SHORTEST:
            continue
        words = text.lower().split()
        starts = range(0, max(1, len(words) - RUN + 1), RUN // 2)
        # Runs from every word are stored but few are looked up, as copies may begin elsewhere.
        runs = {_digest(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}
        copies = sum(_digest(words[i : i + RUN]) in seen for i in starts)
        seen |= runs
        if 2 * copies < len(starts):
            yield text


def spoilt(
    documents: Iterable[str], share: float, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Add noise up to a share of all characters, alternating boilerplate and shuffled words.

    Yields:
        A text, and whether it was planted.
    """
    good = planted = 0
    shuffle = False
    for text in documents:
        yield text, False
        good += len(text)
        while planted < share / (1 - share) * good - len(text) / 2:
            noise = _shuffled(text, rng) if shuffle else _boilerplate(len(text), rng)
            shuffle = not shuffle
            planted += max(1, len(noise))
            yield noise, True


def _shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    return " ".join(words[i] for i in rng.permutation(len(words)))


def _boilerplate(length: int, rng: np.random.Generator) -> str:
    lines: list[str] = []
    while sum(map(len, lines)) < length:
        lines.append(BOILERPLATE[rng.integers(len(BOILERPLATE))])
    return "\n".join(lines)


def _digest(words: list[str]) -> bytes:
    return blake2b(" ".join(words).encode(), digest_size=8).digest()
