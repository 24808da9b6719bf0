"""A taught run without a model: the score is a column of the corpus. Used in process, and by
``together`` on several ranks: ``main`` runs one rank and writes what it trained on to a file.
"""

import json
import os

import numpy as np
import torch
from corpora import difficulty
from torch import distributed as dist
from torch.utils.data import default_collate

from attent_stream.arrange import balance
from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.cutting import apart
from attent_stream.arrange.features import FEATURES
from attent_stream.base.gather import RankGroup
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Clock, Span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.data.first_features import open_first_features
from attent_stream.memory.ledger import SampleLedger
from attent_stream.memory.open_ledger import Request, open_ledger
from attent_stream.memory.remember import Remember
from attent_stream.teach import chooser
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.teacher_settings import TeacherSettings


class Counter:
    """A clock that counts the lessons it is told of."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, ahead: int, epoch: int, share: float) -> Clock:
        return Clock(ep=epoch + share, ba=self.batches + ahead, sp=0, tok=0, dur=0)


class OneOfMany(RankGroup):
    """A rank without the others: a sum is its own part."""

    def total(self, values: np.ndarray) -> np.ndarray:
        return values


def make_teacher(
    *,
    keep=0.5,
    select="hard",
    interval="dense",
    warmup="0ba",
    anneal="0ba",
    temperature=1.0,
    total=None,
    ledger=None,
    seed=3,
    balance=None,
    group=None,
    pieces=1.0,
    enough=0.9,
    detrend=False,
) -> Teacher:
    """A teacher whose clock is its own counter."""
    named = {"balance": balance, "group": group}
    arrange = {} if pieces == 1 else {"pieces": pieces}
    arrange |= {name: value for name, value in named.items() if value is not None}
    settings = TeacherSettings(
        keep=parse_share(keep),
        select=select,
        temperature=temperature,
        interval=parse_interval(interval),
        phases=Phases(warmup=Span.parse(warmup), anneal=Span.parse(anneal)),
        seed=seed,
        enough=enough,
        arrangements=Arrangements.parse(arrange),
    )
    total = Span.parse(total) if total else None
    memory = SampleLedger(ledger, detrend=detrend) if ledger else None
    return Teacher(settings, clock=Counter(), total=total, ledger=memory)


def features(batch: dict) -> torch.Tensor:
    """Four numbers of a sample, small and whole."""
    return torch.from_numpy(features_of(batch["id"].numpy()))


def features_of(ids: np.ndarray) -> np.ndarray:
    return (ids[:, None] // np.array([1, 3, 7, 11]) % 5).astype(np.float16)


TOKENS = 32  # of a sample as text: token j of sample i is 32 i + j


class AsText:
    """Samples as token ids, which say of each piece where it is from."""

    def __call__(self, samples: list) -> dict:
        ids = torch.tensor([[int(sample["id"])] for sample in samples])
        return {"input_ids": ids * TOKENS + torch.arange(TOKENS)}


class AsChat:
    """Samples as padded text of different lengths, beside their other columns."""

    def __call__(self, samples: list) -> dict:
        lengths = torch.tensor([length_of(int(sample["id"])) for sample in samples])
        present = torch.arange(int(lengths.max())) < lengths[:, None]
        batch = default_collate(samples)
        return {**batch, "input_ids": present.long(), "attention_mask": present.long()}


def length_of(sample: int) -> int:
    """Tokens of a sample as padded text: one has more than float16 counts."""
    return 3 + sample * 37 % 29 + 2500 * (sample == 200)


def starts(batch: dict) -> torch.Tensor:
    """The same of a text, or a piece of one."""
    return torch.from_numpy(features_of(batch["input_ids"][:, 0].numpy()))


FEATURES.known |= {"ids": features, "starts": starts}


def run_epochs(loader: TeachingDataLoader, epochs: int = 1, score=None) -> dict:
    """Go through epochs as a training loop does.

    Returns:
        ``lessons``: ids of each lesson batch; ``scored``: ids of each candidate batch, in the order
        they were scored; ``choices``: (epoch, window, by, kept ids in order) of each choice;
        ``lengths``: of the loader, before each epoch. Of text the first token of each piece stands
        for an id.
    """
    log = {"lessons": [], "scored": [], "choices": [], "lengths": []}

    def score_difficulty(batch):
        if "id" not in batch:
            log["scored"].append(batch["input_ids"][:, 0].tolist())
            return torch.tensor([difficulty(start // TOKENS) for start in log["scored"][-1]])
        log["scored"].append(batch["id"].tolist())
        return score(batch) if score else batch["difficulty"]

    for _ in range(epochs):
        log["lengths"].append(loader.forecast())
        for batch in loader:
            for choice in loader.teach(score_difficulty):
                window = choice.window
                log["choices"].append(
                    [window.epoch, window.index, choice.decision.by, choice.ids.tolist()]
                )
            log["lessons"].append(read(batch, loader))
            loader.teacher.clock.batches += 1
    return log


def read(batch: dict, loader: TeachingDataLoader) -> list[int]:
    """What a lesson batch holds: ids, or of text the first token of each piece."""
    ids = loader.epoch.lesson[0].tolist()
    if "id" in batch:
        assert batch["id"].tolist() == ids
        return ids
    assert batch["input_ids"].shape == (len(ids) // loader.epoch.units, TOKENS)
    tokens = apart(batch, loader.epoch.units, len(batch["input_ids"]))["input_ids"]
    assert (tokens // TOKENS == torch.tensor(ids)[:, None]).all() and (
        tokens.diff(dim=1) == 1
    ).all()
    return tokens[:, 0].tolist()


def state_after_each_lesson(loader, epochs: int = 1) -> tuple[list, list]:
    """Lesson batches, and the state after each, read as Composer does."""
    batches, states = [], []
    for _ in range(epochs):
        for step, batch in enumerate(loader):
            loader.teach(
                lambda b: b["difficulty"] if "id" in b else b["input_ids"][:, 0] * 0.37 % 1
            )
            batches.append(read(batch, loader))
            state = loader.dataset.state_dict((step + 1) * loader.batch_size, True)
            assert loader.dataset.state_dict((step + 1) * loader.batch_size, True) == state
            states.append(json.loads(json.dumps(state)))
            loader.teacher.clock.batches += 1
    return batches, states


def make_loader(data: dict, loader: dict, teacher: dict) -> TeachingDataLoader:
    """A loader with its teacher attached."""
    dataset = TeachingDataset(**data)
    text = {"collate_fn": AsText()} if "pieces" in teacher else {}
    if "group" in teacher:
        text = {"collate_fn": AsChat()}
    made = TeachingDataLoader(dataset, batch_size=data["batch_size"], **text, **loader)
    made.attach(make_teacher(**teacher))
    if "group" in teacher:
        made.teacher.first_features = open_first_features(made, lambda tensor: tensor)
    return made


def main(rank: str, world: str, port: str, out: str, spec: str) -> None:
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    spec = json.loads(spec)
    balance.PANEL = spec.get("panel", balance.PANEL)
    chooser.LARGE = spec.get("large", chooser.LARGE)
    chooser.COMPARED = spec.get("large", chooser.COMPARED)
    loader = make_loader(spec["data"], spec["loader"], spec["teacher"])
    if spec.get("shared"):
        dataset, teacher = loader.dataset, loader.teacher
        teacher.ledger = open_ledger(
            Request(
                settings=Remember(),
                dataset=dataset,
                ages=True,
                local_rank=int(rank),
                ranks_per_node=int(world),
            )
        )
        ids = np.arange(dataset.num_samples)
        teacher.remember(ids, ids % spec["shared"] / spec["shared"], 0.0)
    log = run_epochs(loader, spec["epochs"])
    if spec.get("shared"):
        codes = loader.teacher.ledger._codes
        log["shared"] = [str(codes.dtype), codes.flags.owndata]
    with open(out, "w") as file:
        json.dump(log, file)
    dist.barrier()
    del loader
    dist.destroy_process_group()
