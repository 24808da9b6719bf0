"""Training processes to be killed, and the odd collate functions of their workers. Run by
``zygote.py``.
"""

import json
import multiprocessing
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import torch
from streaming import StreamingDataLoader, StreamingDataset
from taught import make_loader
from torch import distributed as dist
from torch.utils.data import default_collate

from attent_stream.base.errors import ScoreError
from attent_stream.order import streaming_order


class Collate:
    """A collate function that does as it is told from its second batch on.

    Args:
        does: ``work``, ``stick`` (for an hour), or ``outlive`` (until the training process has
            ended, then work on).
    """

    def __init__(self, does: str) -> None:
        self.does, self._calls = does, 0

    def __call__(self, samples: list) -> dict:
        self._calls += 1
        if self._calls > 1 and self.does == "stick":
            time.sleep(3600)
        parent = multiprocessing.parent_process().pid
        while self._calls > 1 and self.does == "outlive" and os.getppid() == parent:
            time.sleep(0.01)
        return default_collate(samples)


def train_until_killed(
    kind: str, does: str, data: dict, report: str, context: str = "fork"
) -> None:
    """Take one batch, say which processes there are, and stand still."""
    workers = {"num_workers": 2, "multiprocessing_context": context}
    if kind == "stock":
        data = {key: value for key, value in data.items() if key not in ("window", "gap")}
        loader = StreamingDataLoader(
            StreamingDataset(**data), batch_size=4, collate_fn=Collate(does), **workers
        )
    else:
        loader = make_loader(data, workers | {"collate_fn": Collate(does)}, {})
    batches = iter(loader)
    next(batches)
    pids = [process.pid for process in multiprocessing.active_children()]
    Path(report + ".part").write_text(json.dumps(pids))
    os.rename(report + ".part", report)
    while True:
        signal.pause()


def read_all(data: dict, report: str) -> None:
    """A whole epoch of stock Streaming."""
    data = {key: value for key, value in data.items() if key not in ("window", "gap")}
    Path(report).write_text(json.dumps([sample["id"] for sample in StreamingDataset(**data)]))


def run_rank(spec: dict, out: str) -> None:
    """One gloo rank of a taught run without a model; the environment says which.

    Args:
        spec: ``data``, ``loader``, ``teacher``: of ``make_loader``; ``epochs``; ``timeout``: the
            process group's; ``state`` and ``lessons``: to go on from; ``fault``: ``{rank, lesson,
            does}`` with does ``die``, ``stop``, ``raise``, or ``die sharing``, while the ranks
            share the epoch's order.
        out: Each lesson is written here as a line of JSON: its ids, candidate batches scored until
            then, the state after it.
    """
    dist.init_process_group("gloo", timeout=timedelta(seconds=spec["timeout"]))
    loader = make_loader(spec["data"], spec["loader"], spec["teacher"])
    rank, fault, scored, clock = dist.get_rank(), spec.get("fault") or {}, [], loader.teacher.clock

    def score(batch):
        if fault and rank == fault["rank"] and clock.batches >= fault["lesson"]:
            if fault["does"] == "raise":
                raise ScoreError("score 'odd' raised ZeroDivisionError")
            os.kill(os.getpid(), {"die": signal.SIGKILL, "stop": signal.SIGSTOP}[fault["does"]])
        scored.append(batch["id"].tolist())
        return batch["difficulty"]

    if fault.get("does") == "die sharing" and rank == fault["rank"]:
        streaming_order.mapping = lambda purpose: os.kill(os.getpid(), signal.SIGKILL)
    if spec.get("state"):
        loader.dataset.load_state_dict(spec["state"])
        clock.batches = spec["lessons"]
    with open(out, "w") as file:
        for _ in range(loader.dataset.coming_epoch, spec["epochs"]):
            trained = (
                spec["state"]["sample_in_epoch"]
                if spec.get("state") and not clock.batches - spec["lessons"]
                else 0
            )
            for batch in loader:
                loader.teach(score)
                # As a step does with gradients: nobody runs ahead by more than a lesson
                dist.all_reduce(torch.zeros(1))
                clock.batches += 1
                trained += loader.dataset.row_size
                line = [
                    loader.epoch.lesson[0].tolist(),
                    len(scored),
                    loader.dataset.state_dict(trained, True),
                ]
                assert batch["id"].tolist() == line[0]
                print(json.dumps(line), file=file, flush=True)
    dist.barrier()
