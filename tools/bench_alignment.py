"""Measure what ``score: alignment`` costs, and how well cheap fidelities rank samples as it does.

    python tools/bench_alignment.py [--data FOLDER] [--target NAME] [--quick] [--out FILE.json]

``s`` is the time to score a candidate, relative to a full forward with its loss (medians of
alternating calls, fp32, on a GPT-2 of 125M parameters with random weights and 512 tokens).
``refresh`` is the time to forward one sample of the target, in forwards too; a window pays 32. At
1, 10 and 50 % of a training run on all sources, held-out samples of all sources are ranked:
``spearman`` and ``overlap`` compare a fidelity with the full score, each with a direction of its
own, and ``auc`` says how well the score tells the target's own source from the others.

``--data`` has ``NAME.train.jsonl.zst`` and ``NAME.valid.jsonl.zst`` files; each is a source.
Without it, sources are packages of Python's standard library. The last line is a JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Before torch: threads must not spin.

import numpy as np
import torch
from bench_fidelity import Size, language_model, mean_loss, text_batch
from bench_fidelity_data import read_texts

from attent_stream.model.batch import split_batch
from attent_stream.score.agreement import kept_overlap, spearman
from attent_stream.score.alignment import Direction, head_alignments, head_gradient, low_rank
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import FULL, Fidelity, parse_fidelity
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.microbatches import score_batch
from attent_stream.score.scores import Score

AT = (0.01, 0.1, 0.5)  # shares of the training run
TARGET_SAMPLES = 32
MOST, LEAST = 0.15, 0.9  # of s and of spearman
PACKAGES = ("asyncio", "email", "json", "unittest", "xml", "multiprocessing")
SIZES = {
    False: (
        Size(
            layers=12, width=128, heads=2, length=512, classes=4096, steps=240, batch=4,
            candidates=192,
        ),
        Size(layers=12, width=768, heads=12, length=512, classes=50257),
    ),
    True: (
        Size(
            layers=4, width=64, heads=2, length=128, classes=512, steps=40, batch=4,
            candidates=48, lr=3e-3,
        ),
        Size(layers=6, width=256, heads=4, length=512, classes=8192),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Packed tokens of the sources, int64 (n, length) each."""

    train: torch.Tensor
    target: torch.Tensor
    candidates: torch.Tensor
    of_target: np.ndarray  # bool (candidates,): of the target's own source


class Aligner:
    """Scores samples by alignment at one fidelity, with a direction made at that fidelity."""

    def __init__(self, model: torch.nn.Module, way: Fidelity, head: str = "auto") -> None:
        self._model, self._direction = model, None
        self._gradients: list[torch.Tensor] | None = None
        score = Score(head=self._at_head, name="alignment")
        self._scorer = build_scorer(score, model, head=head, fidelity=way)

    def refresh(self, batches: list[dict]) -> None:
        """Forward batches of the target."""
        self._gradients = []
        for batch in batches:
            score_batch(self._scorer, self._model, batch, None, (0,))
        gradient = sum(self._gradients[1:], self._gradients[0])
        self._gradients = None
        self._direction = low_rank(gradient / gradient.norm())

    def scores(self, batch: dict) -> torch.Tensor:
        """Alignments of a batch, shape (B,)."""
        return score_batch(self._scorer, self._model, batch, None, (0,))

    def _at_head(self, head: HeadInputs) -> torch.Tensor:
        if self._gradients is not None:
            self._gradients.append(head_gradient(head))
            return torch.zeros(len(head.hidden))
        assert isinstance(self._direction, Direction)
        return head_alignments(head, self._direction).float()


def ways(layers: int, quick: bool) -> list[Fidelity]:
    """The full score, then cheaper ones."""
    if quick:
        return [FULL, *map(parse_fidelity, [{"layers": 1}, {"tokens": {"share": 0.25}}])]
    given: list[dict] = [{"tokens": {"share": 0.25}}]
    for count in (1, 2, layers // 2):
        given += [{"layers": count}]
        given += [{"layers": count, "tokens": {"share": share}} for share in (0.125, 0.25)]
    return [FULL, *map(parse_fidelity, given)]


def rows_of(data: Path | None, name: str | None, size: Size) -> Rows:
    """Read, tokenize and pack the sources; half of the held-out target is the target."""
    from tokenizers import ByteLevelBPETokenizer

    texts = _sources(data)
    name = name or ("pycode" if "pycode" in texts else next(iter(texts)))
    if name not in texts:
        raise SystemExit(f"--target must be one of {', '.join(texts)}, got {name!r}")
    tokenizer = ByteLevelBPETokenizer()
    some = [text for train, _ in texts.values() for text in train[:: max(1, len(train) // 500)]]
    tokenizer.train_from_iterator(some, vocab_size=size.classes, show_progress=False)

    def packed(parts: list[str], most: int) -> torch.Tensor:
        ids: list[int] = []
        for part in parts:
            ids += [*tokenizer.encode(part).ids, 0]
            if len(ids) >= most * size.length:
                break
        rows = min(most, len(ids) // size.length)
        return torch.tensor(ids[: rows * size.length]).view(rows, size.length)

    share = size.steps * size.batch // len(texts)
    held = {
        key: packed(parts, size.candidates // len(texts) + TARGET_SAMPLES * (key == name))
        for key, (_, parts) in texts.items()
    }
    target, held[name] = held[name][:TARGET_SAMPLES], held[name][TARGET_SAMPLES:]
    return Rows(
        train=torch.cat([packed(train, share) for train, _ in texts.values()]),
        target=target,
        candidates=torch.cat(list(held.values())),
        of_target=np.concatenate([np.full(len(rows), key == name) for key, rows in held.items()]),
    )


def _sources(data: Path | None) -> dict[str, tuple[list[str], list[str]]]:
    """Training and held-out texts of each source."""
    if data is not None:
        names = sorted({file.name.split(".")[0] for file in data.glob("*.train.jsonl.zst")})
        names = [name for name in names if (data / f"{name}.valid.jsonl.zst").exists()]
        found = {
            name: tuple(
                read_texts(data / f"{name}.{split}.jsonl.zst", limit)
                for split, limit in (("train", 4 << 20), ("valid", 1 << 20))
            )
            for name in names
        }
        return {name: splits for name, splits in found.items() if all(splits)}
    found = {}
    for name in PACKAGES:
        files = sorted((Path(sysconfig.get_path("stdlib")) / name).rglob("*.py"))
        texts = [file.read_text(errors="ignore") for file in files]
        # A third of each file is held out, or small packages would have one file.
        found[name] = (
            [text[: len(text) * 2 // 3] for text in texts],
            [text[len(text) * 2 // 3 :] for text in texts],
        )
    return found


def cost(size: Size, layers: int, seconds: float, head: str, quick: bool) -> dict:
    """``s`` of each fidelity, and ``refresh`` of the full one, in forwards of a sample."""
    torch.manual_seed(0)
    model = language_model(size).eval()
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, size.classes, (1, size.length), generator=generator)
    batch = text_batch(rows)
    calls: dict[str, Callable[[], object]] = {"forward": lambda: mean_loss(model, batch)}
    for way in ways(layers, quick):
        aligner = Aligner(model, way, head)
        aligner.refresh([batch])
        calls[way.name] = lambda aligner=aligner: aligner.scores(batch)
        if way == FULL:
            calls["refresh"] = lambda aligner=aligner: aligner.refresh([batch])
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for call in calls.values():
            call()
        end = time.perf_counter() + seconds
        while not times["forward"] or time.perf_counter() < end:
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    _say(f"{len(times['forward'])} rounds, forward {medians['forward']:.3f} s")
    return {name: value / medians["forward"] for name, value in medians.items()}


def ranks(rows: Rows, size: Size, quick: bool) -> list[dict]:
    """Train, and compare each fidelity with the full score at each of ``AT``."""
    torch.manual_seed(0)
    model = language_model(size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, betas=(0.9, 0.95))
    stops = [max(1, int(at * size.steps)) for at in AT]
    found, order = [], np.random.default_rng(0)
    for step in range(1, stops[-1] + 1):
        model.train()
        loss = mean_loss(
            model, text_batch(rows.train[order.integers(0, len(rows.train), size.batch)])
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step in stops:
            _say(f"step {step} of {size.steps}, loss {loss.item():.3f}")
            at = AT[stops.index(step)]
            found += [{**entry, "at": at} for entry in compare(model.eval(), rows, size, quick)]
    return found


def compare(model: torch.nn.Module, rows: Rows, size: Size, quick: bool) -> list[dict]:
    """Rank correlation of each fidelity with the full score, and how both see the target."""
    found, full = [], None
    for way in ways(size.layers, quick):
        aligner = Aligner(model, way)
        with torch.no_grad():
            aligner.refresh(list(split_batch(text_batch(rows.target), 8)))
            parts = split_batch(text_batch(rows.candidates), 8)
            values = torch.cat([aligner.scores(part) for part in parts]).double().numpy()
        full = values if full is None else full
        found.append(
            {
                "way": way.name,
                "spearman": round(spearman(values, full), 4),
                "overlap": round(kept_overlap(values, full, 0.5), 4),
                "auc": round(auc(values, rows.of_target), 4),
            }
        )
    return found


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive has a larger value than another."""
    above = values[positive][:, None] - values[~positive][None]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with texts")
    parser.add_argument("--target", metavar="NAME", help="source that is the target")
    parser.add_argument("--quick", action="store_true", help="small models: about 15 s")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    args = parser.parse_args()
    begin = time.perf_counter()
    size, cost_size = SIZES[args.quick]
    rows = rows_of(args.data, args.target, size)
    head = "reference" if args.quick else "auto"
    s = cost(cost_size, size.layers, 1.0 if args.quick else 120.0, head, args.quick)
    entries = [{**entry, "s": round(s[entry["way"]], 4)} for entry in ranks(rows, size, args.quick)]
    last = [e for e in entries if e["at"] == AT[-1] and e["spearman"] >= LEAST]
    best = min(last, key=lambda entry: entry["s"])
    result = {
        "alignment": entries,
        "cheapest": best,
        "refresh": round(s["refresh"], 4),
        "s_at_most": MOST,
        "spearman_at_least": LEAST,
        "met": best["s"] <= MOST,
        "quick": args.quick,
        "torch": torch.__version__,
        "on": f"{torch.get_num_threads()} CPU threads",
        "seconds": round(time.perf_counter() - begin, 1),
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
