"""Kill and restart taught runs for an hour, and compare their lessons with undisturbed runs.

    python tools/soak.py [--minutes 60] [--seed 0] [--folder DIR] [--epochs 6]

Each run is trained twice until it is complete: undisturbed on one rank, and disturbed by kills,
restarts on other numbers of ranks and a missing store. Scores are a column of the corpus, because
scores of a model differ in their last bits between world sizes. The ids and weights of all lessons,
also those repeated after a kill, must equal the undisturbed run's. Windows are balanced in several
panels, and disturbed runs of every second turn of the settings choose in a thread, as large windows
are.

The last line is a JSON object: ``kills`` (starts with a SIGKILL), ``resumes_on`` (world sizes that
resumed from a checkpoint), ``ids_equal``, ``shm_left`` and ``processes_left`` (the most names and
processes left 30 s after all ranks of a start ended), ``rss_growth`` (the largest relative growth
of a rank's memory after its tenth lesson), and counts. The exit code is 0 if the lessons are equal,
nothing hung and nothing was left.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ports import free_port
from zygote import Child, Zygote, group, until

WORLDS = (1, 2, 4)
BATCH, SAMPLES, TARGETS = 8, 400, 80
# Seconds without a lesson after which a start counts as hung, longer than all its timeouts.
PATIENCE = 300.0
LEFT = 30.0  # Seconds in which processes and shared memory must disappear.
PANEL = 24  # units of a panel: half of a window's slots, or fewer
PIECES = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
# Choices by draws and by order, remembered for two epochs, short pieces and balance, and toward a
# target; runs take them in turn. TARGET stands for the target's folder.
ATTENT: tuple[dict[str, Any], ...] = (
    {"keep": 0.5, "select": "soft"},
    {"keep": 0.4, "select": "hard", "interval": "2ep"},
    {
        "keep": {"schedule": "linear", "from": 0.3, "to": 0.9},
        "warmup": "0.1dur",
        "anneal": "0.1dur",
    },
    {"keep": 0.5, "select": "random"},
    {"arrange": {"pieces": PIECES, "balance": "tokens"}},
    {"target": "TARGET"},
    {"keep": 0.6, "select": "soft", "interval": "2ep", "arrange": {"balance": "tokens"}},
    {"target": "TARGET", "keep": 0.4, "select": "hard", "arrange": {"pieces": PIECES}},
)


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """A run's ids and weights of each batch, by the batch's number from 1."""

    of: dict[int, Counter]

    def hold(self, logs: list[list[dict]]) -> bool:
        """Return whether the logged lessons are these, and complete if all ranks logged them."""
        for batch in sorted({line["batch"] for log in logs for line in log}):
            lines = [line for log in logs for line in log if line["batch"] == batch]
            got, expected = taught(lines), self.of.get(batch, Counter())
            if got - expected or (len(lines) == len(logs) and got != expected):
                return False
        return True


def taught(lines: list[dict]) -> Counter:
    """Count the ids and weights in a batch's lines, one of each rank."""
    return Counter(
        pair for line in lines for pair in zip(line["ids"], line["weights"], strict=True)
    )


def read(path: Path) -> list[dict]:
    """Read a rank's log, without a last line cut short."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@contextmanager
def gone(remote: Path, seconds: float) -> Iterator[None]:
    """Remove the store, and restore it after some seconds."""
    away = remote.with_name(remote.name + ".away")
    remote.rename(away)
    end = time.monotonic() + seconds
    try:
        yield
        time.sleep(max(0.0, end - time.monotonic()))
    finally:
        away.rename(remote)


@contextmanager
def one_shard_gone(remote: Path, seconds: float) -> Iterator[None]:
    """Remove a shard, and restore it after some seconds."""
    with gone(sorted(remote.glob("*.mds"))[7], seconds):
        yield


# Contexts (the remote's folder, seconds) in which the store has a fault.
STORE_FAULTS: dict[str, Callable] = {"store gone": gone, "shard gone": one_shard_gone}


class Soak:
    """Start, disturb and check runs.

    Args:
        folder: Folder of all files.
        seed: Seed of all draws.
        epochs: Epochs of each run.
        end: End of the disturbances, by ``time.monotonic``.
    """

    def __init__(self, folder: Path, seed: int, epochs: int, end: float) -> None:
        self.folder, self.epochs, self.end = folder, epochs, end
        self.rng = np.random.default_rng([seed])
        self.done: Counter = Counter()
        self.resumes_on: set[int] = set()
        self.worst = {"shm_left": 0, "processes_left": 0, "rss_growth": 0.0, "hung": 0}
        self.ids_equal = True
        here = Path(__file__).resolve().parent
        self.zygote = Zygote(["soak_rank"], [str(here), str(here.parent)])
        self._shared = self.zygote.shared_memory()
        self.remote, self.target = folder / "corpus", folder / "target"
        for place, samples, like in ((self.remote, SAMPLES, 0.3), (self.target, TARGETS, 1.0)):
            wrote = self._child("soak_rank:write_corpus", str(place), samples, seed, like)
            assert wrote.wait(PATIENCE) == 0

    def run(self, number: int) -> None:
        """Train a run undisturbed and disturbed."""
        data = {
            "remote": str(self.remote),
            "shuffle": True,
            "shuffle_seed": number,
            "num_canonical_nodes": 4,
        }
        data |= {"window": 6, "gap": 2, "download_retry": 2}
        spec = {
            "batch": BATCH,
            "duration": f"{self.epochs}ep",
            "data": data,
            "attent": self._attent(number),
        }
        spec |= {"workers": 1, "save": "3ba", "panel": PANEL}
        whole = self._start(spec, f"run{number}", "undisturbed", 1, None)
        lessons = Lessons(of={line["batch"]: taught([line]) for line in whole[0]})
        if not lessons.of:
            raise SystemExit(f"run {number} failed undisturbed: see what it said in {self.folder}")
        if number // len(ATTENT) % 2 == 0:
            spec |= {"large": 1}
            self.done["runs in a thread"] += 1
        reached = start = 0
        while reached < len(lessons.of):
            start += 1
            logs = self._start(
                spec, f"run{number}.killed", str(start), int(self.rng.choice(WORLDS)), lessons
            )
            reached = max([reached, *(line["batch"] for line in logs[0])])
        self.done["runs"] += 1
        self.done["lessons"] += reached

    def _attent(self, number: int) -> dict[str, Any]:
        chosen = ATTENT[number % len(ATTENT)]
        return chosen | ({"target": str(self.target)} if "target" in chosen else {})

    def _start(
        self, spec: dict, run: str, start: str, world: int, lessons: Lessons | None
    ) -> list[list[dict]]:
        """Start a run, disturbed if ``lessons`` are given, and return its ranks' logs."""
        folder = self.folder / run
        folder.mkdir(exist_ok=True)
        spec = spec | {"folder": str(folder), "start": start}
        spec["data"] = spec["data"] | {"local": str(folder / "cache")}
        paths = [folder / f"{start}.rank{rank}.jsonl" for rank in range(world)]
        disturbed = lessons is not None and time.monotonic() < self.end
        faults = [*STORE_FAULTS, *[None] * 6]
        fault = faults[self.rng.integers(len(faults))] if disturbed else None
        if fault:
            shutil.rmtree(folder / "cache0", ignore_errors=True)
            self.done[fault] += 1
            with STORE_FAULTS[fault](self.remote, self.rng.uniform(0.5, 6)):
                ranks = self._launch(spec, world, folder)
                until(lambda: len(read(paths[0])) > 0 or ended(ranks), 6)
        else:
            ranks = self._launch(spec, world, folder)
        if disturbed:
            wanted, pause = self.rng.integers(0, 24), self.rng.uniform(0, 0.5)
            until(lambda: len(read(paths[0])) >= wanted or ended(ranks), PATIENCE)
            time.sleep(pause if wanted else 8 * pause)  # Also while it saves or starts.
            self._kill(ranks)
        self._end(ranks, paths[0])
        logs = [read(path) for path in paths]
        self._check(logs, lessons, ranks)
        return logs

    def _launch(self, spec: dict, world: int, folder: Path) -> list[Child]:
        port = str(free_port())
        common = {
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "NODE_RANK": "0",
            "OMP_NUM_THREADS": "1",
        }
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TMPDIR": str(folder)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        self.done["starts"] += 1
        names = [f"{spec['start']}.{rank}" for rank in range(world)]
        return [
            self._child("soak_rank:run", spec, name=n, **common, **rank)
            for n, rank in zip(names, ranks, strict=True)
        ]

    def _child(self, function: str, *args, name: str = "corpus", **env: str) -> Child:
        return self.zygote.start(
            function, *args, said=self.folder / f"{time.time_ns()}.{name}.txt", env=env
        )

    def _kill(self, ranks: list[Child]) -> None:
        """Kill all ranks at once, as a lost machine does, a rank or a worker."""
        running = [rank for rank in ranks if rank.poll() is None]
        if not running:
            return
        what = ("all", "rank", "worker")[self.rng.integers(3)]
        one = running[self.rng.integers(len(running))]
        workers = [pid for pid in group(one.pid) if pid != one.pid]
        if what == "worker" and workers:
            with suppress(ProcessLookupError):  # It may have ended.
                os.kill(workers[-1], signal.SIGKILL)
        else:
            for rank in running if what == "all" else [one]:
                rank.kill()
        self.done["kills"] += 1
        self.done[f"kills of {what}"] += 1

    def _end(self, ranks: list[Child], log: Path) -> None:
        """Wait for all ranks, and end the others when one fails or all hang, as a launcher does."""
        lines, since = -1, time.monotonic()
        while not ended(ranks):
            if len(read(log)) != lines:
                lines, since = len(read(log)), time.monotonic()
            if any(rank.poll() for rank in ranks):
                for rank in ranks:
                    rank.kill(signal.SIGTERM)
            if time.monotonic() - since > PATIENCE:
                self.worst["hung"] += 1
                for rank in ranks:
                    rank.kill()
            time.sleep(0.1)

    def _check(self, logs: list[list[dict]], lessons: Lessons | None, ranks: list[Child]) -> None:
        until(lambda: not any(group(rank.pid) for rank in ranks), LEFT)
        until(lambda: self.zygote.shared_memory() <= self._shared, LEFT)
        left = {
            "processes_left": sum(len(group(rank.pid)) for rank in ranks),
            "shm_left": len(self.zygote.shared_memory() - self._shared),
            "rss_growth": max((growth(log) for log in logs), default=0.0),
        }
        self.worst |= {name: max(self.worst[name], value) for name, value in left.items()}
        if lessons is not None:
            self.ids_equal &= lessons.hold(logs)
            if logs[0] and logs[0][0]["batch"] > 1:
                self.resumes_on.add(len(ranks))


def ended(ranks: list[Child]) -> bool:
    """Return whether all ranks have ended."""
    return all(rank.poll() is not None for rank in ranks)


def growth(log: list[dict]) -> float:
    """Return the relative growth of a rank's memory after its tenth lesson."""
    return log[-1]["rss"] / log[9]["rss"] - 1 if len(log) > 20 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run")
    parser.add_argument("--folder", type=Path, help="a folder to keep (default: a temporary one)")
    given = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, given.seed, given.epochs, begin + given.minutes * 60)
        number = 0
        while time.monotonic() < soak.end:
            soak.run(number)
            number += 1
            print(
                f"run {number}: {dict(soak.done)}, equal: {soak.ids_equal}, worst: {soak.worst}",
                flush=True,
            )
        soak.zygote.close()
    worst = soak.worst | {"rss_growth": round(soak.worst["rss_growth"], 4)}
    summary = {
        "kills": soak.done.pop("kills", 0),
        "resumes_on": sorted(soak.resumes_on),
        "ids_equal": soak.ids_equal,
    }
    print(
        json.dumps(
            summary | worst | {"minutes": round((time.monotonic() - begin) / 60, 1), **soak.done}
        )
    )
    return (
        0
        if soak.ids_equal and not (worst["hung"] or worst["shm_left"] or worst["processes_left"])
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
