"""Compare the loader with Streaming's own, alternating in one process.

    python tools/bench_loader.py [--quick] [--out tools/results/FILE.json]

Samples are 2,048 tokens as uint16. For each number of workers and batch size it prints
`stock_ratio` (batches/s without a teacher, relative to stock), `candidate_ratio` (candidates/s with
keep 0.5 and a free scorer, relative to stock's samples/s) and `border_wait_ratio` (the longest wait
for a window's first lessons, relative to the median wait). The last line is a JSON object of the
worst ratios and of every setting.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Clock, Span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.teacher_settings import TeacherSettings

TOKENS = 2048
WINDOW, GAP = 16, 8


def write_corpus(folder: str, samples: int) -> None:
    """Write random tokens in shards of 8 MB."""
    rng = np.random.default_rng(0)
    with MDSWriter(
        out=folder, columns={"tokens": f"ndarray:uint16:{TOKENS}"}, size_limit=1 << 23
    ) as writer:
        for _ in range(samples):
            writer.write({"tokens": rng.integers(0, 50000, TOKENS).astype(np.uint16)})


def collate(samples: list[dict]) -> torch.Tensor:
    """Stack the uint16 tokens, viewed as int16, shape (batch, 2048)."""
    return torch.from_numpy(np.stack([sample["tokens"] for sample in samples]).view(np.int16))


def free_teacher() -> Teacher:
    """Build a teacher that keeps half."""
    settings = TeacherSettings(
        keep=parse_share(0.5),
        select="hard",
        temperature=1.0,
        interval=parse_interval("dense"),
        phases=Phases(warmup=Span.parse("0ba"), anneal=Span.parse("0ba")),
        seed=1,
    )
    return Teacher(
        settings, clock=lambda ahead, epoch, share: Clock(ep=epoch, ba=ahead, sp=0, tok=0, dur=0)
    )


def stock_rate(folder: str, batch: int, workers: int) -> float:
    """Return samples/s of an epoch of Streaming's own loader, after its first batch."""
    dataset = StreamingDataset(local=folder, batch_size=batch, shuffle=True, num_canonical_nodes=1)
    return _rate(
        StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate),
        batch,
    )


def plain_rate(folder: str, batch: int, workers: int) -> float:
    """Return samples/s of our loader without a teacher."""
    return _rate(_ours(folder, batch, workers), batch)


def _ours(folder: str, batch: int, workers: int) -> TeachingDataLoader:
    dataset = TeachingDataset(
        local=folder, batch_size=batch, shuffle=True, num_canonical_nodes=1, window=WINDOW, gap=GAP
    )
    return TeachingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate)


def _rate(loader, batch: int) -> float:
    count, begin = 0, 0.0
    for count, _ in enumerate(loader):  # noqa: B007
        begin = begin or time.perf_counter()
    seconds = time.perf_counter() - begin
    del loader
    _clean()
    return count * batch / seconds


def candidate_rate(folder: str, batch: int, workers: int) -> float:
    """Return candidates/s with keep 0.5 and a free scorer, after the first window."""
    loader = _ours(folder, batch, workers)
    loader.attach(free_teacher())
    candidates, begin = 0, 0.0

    def score(tokens: torch.Tensor) -> torch.Tensor:
        nonlocal candidates
        candidates += len(tokens)
        return tokens[:, 0].float()

    for _ in loader:
        loader.teach(score)
        if loader.epoch.segment.index >= 1 and not begin:
            begin, candidates = time.perf_counter(), 0
        if not len(loader.epoch.segment.candidates) and begin:
            break
    seconds = time.perf_counter() - begin
    del loader
    _clean()
    return candidates / seconds


def border_waits(
    folder: str, batch: int, workers: int, step: float
) -> tuple[list[float], list[float]]:
    """Return seconds of waiting for lesson batches inside windows and at their borders.

    A training step takes ``step`` seconds.
    """
    loader = _ours(folder, batch, workers)
    loader.attach(free_teacher())
    inner, border = [], []  # A dozen borders give enough of both.
    begin, last = time.perf_counter(), 0
    for _ in loader:
        wait = time.perf_counter() - begin
        index = loader.epoch.segment.index
        (border if index != last else inner).append(wait)
        last = index
        if index > 12:
            break
        loader.teach(lambda tokens: tokens[:, 0].float())
        time.sleep(step)  # In place of a training step.
        begin = time.perf_counter()
    del loader
    _clean()
    return inner[1:], border


def _clean() -> None:
    gc.collect()
    clean_stale_shared_memory()


def measure(folder: str, batch: int, workers: int, rounds: int) -> dict:
    """Measure the ratios of a setting, as medians over alternating rounds."""
    rates = {"stock": [], "plain": [], "candidates": []}
    for _ in range(rounds):
        rates["stock"].append(stock_rate(folder, batch, workers))
        rates["plain"].append(plain_rate(folder, batch, workers))
        rates["candidates"].append(candidate_rate(folder, batch, workers))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    # Twice the time that the loader needs for a step's lesson and candidates.
    step = 2 * 3 * batch / medians["stock"]
    inner, border = border_waits(folder, batch, workers, step)
    everything = sorted(inner + border)
    return {
        "workers": workers,
        "batch": batch,
        "samples_per_s": {name: round(rate) for name, rate in medians.items()},
        "stock_ratio": round(medians["plain"] / medians["stock"], 3),
        "candidate_ratio": round(medians["candidates"] / medians["stock"], 3),
        "border_wait_ratio": round(max(border) / statistics.median(everything), 3),
        "wait_ms": {
            "p50": round(1e3 * statistics.median(everything), 3),
            "p99": round(1e3 * everything[int(0.99 * (len(everything) - 1))], 3),
            "max": round(1e3 * everything[-1], 3),
            "border_max": round(1e3 * max(border), 3),
            "step": round(1e3 * step, 3),
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds: under 50 s")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    args = parser.parse_args()
    samples, rounds = (4000, 2) if args.quick else (30000, 5)
    settings = []
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, samples)
        for workers in (1, 2):
            for batch in (16, 64):
                settings.append(measure(folder, batch, workers, rounds))
                print(json.dumps(settings[-1]), file=sys.stderr, flush=True)
    worst = {name: min(s[name] for s in settings) for name in ("stock_ratio", "candidate_ratio")}
    worst["border_wait_ratio"] = max(s["border_wait_ratio"] for s in settings)
    result = {
        **worst,
        "torch": torch.__version__,
        "samples": samples,
        "rounds": rounds,
        "settings": settings,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
