"""A taught run in lives: each is killed (SIGKILL) at a step and an event, and the next goes on by
``autoresume``.

``python killed.py SPEC`` imports once and forks a process a life, so that many kills take little
time. SPEC is JSON: ``folder``, ``held_out``, ``out`` (a log: a JSON line a step of each life),
``saved``, ``lives`` (a list of [batch, event], or null for one that ends by itself), ``attent``
(AtteNT's arguments) and ``run`` (the Trainer's).
"""

import json
import os
import signal
import sys

import torch
from composer import Evaluator, Trainer
from composer.core import Callback, Event
from composer.loggers import InMemoryLogger
from fits import BATCH, make_model
from streaming import StreamingDataLoader, StreamingDataset

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator


class Log(Callback):
    """Appends ids, weights and loss of each step to a file, and kills its process at a batch and
    event.
    """

    def __init__(self, path: str, loader: TeachingDataLoader, kill: list | None) -> None:
        self.path, self.loader, self.kill = path, loader, kill

    def run_event(self, event: Event, state, logger) -> None:
        if event == Event.BATCH_END:
            ids, weights = self.loader.epoch.lesson
            step = {
                "batch": int(state.timestamp.batch) - 1,
                "ids": ids.tolist(),
                "weights": weights.tolist(),
            }
            step |= {
                "loss": float(state.loss).hex(),
                "lr": float(state.optimizers[0].param_groups[0]["lr"]).hex(),
            }
            step |= {"tokens": state.batch["input_ids"].tolist()}
            with open(self.path, "a") as file:
                file.write(json.dumps(step) + "\n")
        if self.kill and self.kill == [int(state.timestamp.batch), event.value]:
            os.kill(os.getpid(), signal.SIGKILL)


def live(spec: dict, kill: list | None) -> None:
    """One life."""
    data = {
        "local": spec["folder"],
        "batch_size": BATCH,
        "window": 4,
        "gap": 1,
        "shuffle": True,
        "num_canonical_nodes": 1,
    }
    data["order"] = spec["order"]
    loader = TeachingDataLoader(
        TeachingDataset(**data),
        batch_size=BATCH,
        collate_fn=TokenCollator(),
        num_workers=2,
        prefetch_factor=3,
    )
    held_out = StreamingDataset(local=spec["held_out"], batch_size=BATCH)
    evaluator = StreamingDataLoader(held_out, batch_size=BATCH, collate_fn=TokenCollator())
    model = make_model(dropout=0.2)
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        eval_dataloader=Evaluator(label="eval", dataloader=evaluator),
        eval_interval="4ba",
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-2),
        algorithms=[AtteNT(**spec["attent"])],
        callbacks=[Log(spec["out"], loader, kill)],
        loggers=[InMemoryLogger()],
        progress_bar=False,
        run_name="killed",
        autoresume=True,
        save_folder=spec["saved"],
        seed=11,
        **spec["run"],
    )
    trainer.fit()
    trainer.close()


def main(spec: dict) -> None:
    torch.set_num_threads(1)
    # What Hugging Face and Composer import for the first model, each life has from here
    make_model()
    for kill in spec["lives"]:
        child = os.fork()
        if not child:
            live(spec, kill)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        assert ended == (signal.SIGKILL if kill else 0), (
            f"the life to be killed at {kill} ended with {ended}"
        )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
