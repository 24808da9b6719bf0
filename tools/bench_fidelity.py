"""Measure the cost and the accuracy of cheap scores: the frontier of ``fidelity``.

    python tools/bench_fidelity.py [--data FOLDER] [--quick] [--only lm] [--device cuda]
                                   [--out tools/results/FILE.json] [--plot FILE.png]

``s`` is the time to score a candidate, relative to a full forward with its loss (medians of
alternating calls). At 1, 10 and 50 % of a training run, scores of held-out candidates are compared
with the full ones: by rank correlation (``spearman``), and by the share of the better half that
both keep (``overlap``). A proxy trains on one lesson batch in four; its ``s`` includes that time,
spread over the two candidates of each lesson.

On a CPU ``s`` is measured in fp32 on a GPT-2 of 125M parameters with 2,048 tokens and on a ViT-S
with 224 pixels, with random weights. Smaller models of as many layers are trained for the ranks, on
the texts and images in ``--data`` (``NAME.train.jsonl.zst``, ``NAME.valid.jsonl.zst``,
``cifar10_jpeg.tar.zst``), or on Python's standard library and drawn gratings. On a CUDA device the
same models are trained, with bf16 autocast. The last line is a JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Before torch: threads must not spin.

import numpy as np
import torch
from bench_fidelity_data import image_sets, token_rows
from bench_fidelity_ways import WAYS, proxy_settings, proxy_ways, scoring_model
from composer.models import ComposerClassifier, HuggingFaceModel
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from attent_stream.experimental.proxy import Proxy, ProxySettings
from attent_stream.launch.models import Logits
from attent_stream.model import reference
from attent_stream.model.batch import split_batch
from attent_stream.score.agreement import kept_overlap, spearman
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity
from attent_stream.score.microbatches import score_batch
from attent_stream.score.reduced_forward import ReducedForward
from attent_stream.score.token_positions import strided_positions
from attent_stream.score.token_positions import take_tokens as at_positions

SCORES = ("loss", "residual")
KEEP = 0.5  # Share of candidates that become lessons, which the proxy trains on.
AT = (0.01, 0.1, 0.5)  # Shares of the training run.
# The largest s and the smallest Spearman, at half of the run.
TARGETS = {"lm": (0.12, 0.9), "vit": (0.25, 0.85)}


@dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes of a language model or a ViT, and of its training."""

    layers: int
    width: int
    heads: int
    length: int  # Tokens, or height in pixels.
    classes: int = 10  # Or the size of the vocabulary.
    patch: int = 16
    steps: int = 0
    batch: int = 0
    candidates: int = 0
    lr: float = 1e-3


SIZES = {
    "cpu": {
        "lm": Size(
            layers=12,
            width=128,
            heads=2,
            length=2048,
            classes=4096,
            steps=240,
            batch=2,
            candidates=96,
        ),
        "lm_cost": Size(layers=12, width=768, heads=12, length=2048, classes=50257),
        "vit": Size(
            layers=12, width=128, heads=4, length=32, patch=4, steps=600, batch=32, candidates=768
        ),
        "vit_cost": Size(layers=12, width=384, heads=6, length=224, classes=1000),
    },
    "quick": {
        "lm": Size(
            layers=6,
            width=64,
            heads=2,
            length=256,
            classes=512,
            steps=24,
            batch=2,
            candidates=32,
            lr=3e-3,
        ),
        "lm_cost": Size(layers=6, width=256, heads=4, length=512, classes=8192),
        "vit": Size(
            layers=4, width=64, heads=2, length=32, patch=4, steps=24, batch=16, candidates=64
        ),
        "vit_cost": Size(layers=4, width=192, heads=3, length=224, classes=100),
    },
    "cuda": {
        "lm": Size(
            layers=12,
            width=768,
            heads=12,
            length=2048,
            classes=32768,
            steps=2000,
            batch=16,
            candidates=512,
            lr=6e-4,
        ),
        "lm_cost": Size(layers=12, width=768, heads=12, length=2048, classes=50257),
        "vit": Size(
            layers=12,
            width=384,
            heads=6,
            length=32,
            patch=4,
            steps=10000,
            batch=128,
            candidates=2048,
            lr=5e-4,
        ),
        "vit_cost": Size(layers=12, width=384, heads=6, length=224, classes=1000),
    },
}


def language_model(size: Size) -> HuggingFaceModel:
    config = GPT2Config(
        vocab_size=size.classes,
        n_positions=size.length,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return HuggingFaceModel(
        GPT2LMHeadModel(config), tokenizer=None, use_logits=True, shift_labels=True
    )


def image_model(size: Size) -> ComposerClassifier:
    config = ViTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.length,
        intermediate_size=4 * size.width,
        patch_size=size.patch,
        num_labels=size.classes,
    )
    return ComposerClassifier(Logits(ViTForImageClassification(config)), num_classes=size.classes)


MODELS: dict[str, Callable[[Size], torch.nn.Module]] = {"lm": language_model, "vit": image_model}


def text_batch(rows: torch.Tensor) -> dict:
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": rows}


def proxy_of(
    kind: str, size: Size, learner: torch.nn.Module, device: str
) -> tuple[Proxy, ProxySettings]:
    """Build a proxy of a third of the width, and a sixth (LM) or a third (ViT) of the blocks."""
    layers = max(1, size.layers // {"lm": 6, "vit": 3}[kind])
    torch.manual_seed(1)
    settings = proxy_settings(
        MODELS[kind](replace(size, layers=layers, width=size.width // 3, heads=1))
    )
    return Proxy(settings, learner, torch.device(device), seed=1), settings


def mean_loss(model: torch.nn.Module, batch) -> torch.Tensor:
    """Return the mean loss of a training forward."""
    if isinstance(batch, dict):
        return model(batch)["loss"]
    return F.cross_entropy(model(batch), batch[1])


def cost(
    kind: str, size: Size, layers: int, device: str, seconds: float, head: str, quick: bool
) -> dict[str, float]:
    """Measure ``s`` of each method; ``head`` is as in ``build_scorer``."""
    microbatch = {"lm": 1, "vit": 4}[kind] if device == "cpu" else {"lm": 16, "vit": 128}[kind]
    torch.manual_seed(0)
    model = MODELS[kind](size).to(device).eval()
    generator = torch.Generator().manual_seed(1)
    if kind == "lm":
        batch = text_batch(
            torch.randint(0, size.classes, (microbatch, size.length), generator=generator).to(
                device
            )
        )
    else:
        pixels = torch.randn(microbatch, 3, size.length, size.length, generator=generator)
        batch = (pixels.to(device), (torch.arange(microbatch) % size.classes).to(device))
    proxy, settings = proxy_of(kind, size, model, device)
    ways = [*WAYS[kind](layers, quick), *proxy_ways(kind, settings, quick)]
    calls = {"forward": lambda: mean_loss(model, batch), "learn": lambda: proxy.learn(batch)}
    for way in ways:
        scoring = scoring_model(way, model)
        scorer = build_scorer("loss", scoring, head=head, fidelity=way)
        calls[way.name] = lambda scorer=scorer, scoring=scoring: score_batch(
            scorer, scoring, batch, None, (0,)
        )
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad(), _autocast(device):
        for call in calls.values():
            call()  # Compiles, and runs the comparison of every 256th forward.
        end = time.perf_counter() + seconds
        while not times["forward"] or time.perf_counter() < end:
            for name, call in calls.items():
                _wait(device)
                begin = time.perf_counter()
                call()
                _wait(device)
                times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{kind}: {len(times['forward'])} rounds, forward {medians['forward']:.3f} s",
        file=sys.stderr,
        flush=True,
    )
    # A lesson's learning time, spread over its 1 / KEEP candidates.
    learning = KEEP * medians["learn"] / settings.every
    return {
        way.name: (medians[way.name] + (learning if way.proxy else 0.0)) / medians["forward"]
        for way in ways
    }


def ranks(
    kind: str, size: Size, device: str, data: Path | None, quick: bool
) -> tuple[list[dict], dict]:
    """Train, and compare every method with the full score at each of ``AT``."""
    torch.manual_seed(0)
    needed = max(1, int(AT[-1] * size.steps)) * size.batch
    if kind == "lm":
        limit = 1 << 20 if size.steps <= 100 else 24 << 20 if device == "cpu" else 400 << 20
        train, held, source = token_rows(
            data,
            vocab_size=size.classes,
            length=size.length,
            rows=needed,
            held_out=size.candidates,
            limit=limit,
        )
        count, pick = len(train), lambda index: text_batch(train[index].to(device))
        candidates = text_batch(held.to(device))
    else:
        (pixels, classes), held, source = image_sets(
            data, images=min(50000, needed), held_out=size.candidates
        )
        count, pick = (
            len(pixels),
            lambda index: (pixels[index].to(device), classes[index].to(device)),
        )
        candidates = tuple(part.to(device) for part in held)
    model = MODELS[kind](size).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=size.lr, betas=(0.9, 0.95), weight_decay=0.1
    )
    warmup = max(1, size.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + np.cos(np.pi * step / size.steps))),
    )
    proxy, settings = proxy_of(kind, size, model, device)
    ways = [*WAYS[kind](size.layers, quick), *proxy_ways(kind, settings, quick)]
    stops = [max(1, int(at * size.steps)) for at in AT]
    entries, losses, order = [], [], np.random.default_rng(0)
    for step in range(1, stops[-1] + 1):
        model.train()
        with _autocast(device):
            batch = pick(order.integers(0, count, size.batch))
            loss = mean_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if proxy.learns_from(step):
            with _autocast(device):
                proxy.learn(batch)
        losses.append(loss.detach())
        if step in stops:
            at = AT[stops.index(step)]
            recent = torch.stack(losses[-20:]).mean().item()
            print(
                f"{kind}: step {step} of {size.steps}, loss {recent:.3f}",
                file=sys.stderr,
                flush=True,
            )
            entries += [
                {**entry, "at": at}
                for entry in compare(kind, model.eval(), candidates, ways, device)
            ]
    return entries, {
        "data": source,
        "steps": size.steps,
        "loss_at_half": round(torch.stack(losses[-20:]).mean().item(), 3),
    }


def compare(
    kind: str, model: torch.nn.Module, candidates, ways: list[Fidelity], device: str
) -> list[dict]:
    """Compare each method with the full score by Spearman and overlap, for both scores."""
    entries, full = [], {}
    measure = text_scores if kind == "lm" else image_scores
    for way, name, values in measure(model, candidates, ways, device):
        values = values.double().cpu().numpy()
        truth = full.setdefault(name, values)  # The first method is the full one.
        entries.append(
            {
                "model": kind,
                "way": way.name,
                "score": name,
                "spearman": round(spearman(values, truth), 4),
                "overlap": round(kept_overlap(values, truth, 0.5), 4),
            }
        )
    return entries


def image_scores(model: torch.nn.Module, candidates, ways: list[Fidelity], device: str):
    """Yield (method, score's name, values)."""
    for way in ways:
        for name in SCORES:
            asked = scoring_model(way, model)
            scorer = build_scorer(name, asked, fidelity=way)
            with torch.no_grad(), _autocast(device):
                yield (
                    way,
                    name,
                    torch.cat(
                        [
                            score_batch(scorer, asked, part, None, (0,))
                            for part in split_batch(candidates, 64)
                        ]
                    ),
                )


def text_scores(model: torch.nn.Module, candidates, ways: list[Fidelity], device: str):
    """Yield the same, with one forward for methods that differ only in strided tokens."""
    forwards: dict[Fidelity, list] = {}
    for way in ways:
        strided = way.tokens is not None and way.tokens.take == "strided"
        base = replace(way, tokens=None) if strided else way
        if base not in forwards:
            asked = scoring_model(way, model)
            forwards[base] = [
                token_scores(asked, base, part, device) for part in split_batch(candidates, 4)
            ]
        tokens = [torch.cat(parts) for parts in zip(*forwards[base], strict=True)]
        if strided:
            positions = strided_positions(tokens[-1], way.tokens.share)
            tokens = [
                at_positions(values, positions, fill)
                for values, fill in zip(tokens, (0, 0, reference.IGNORED), strict=True)
            ]
        nll, residual_sq, labels = tokens
        valid = labels != reference.IGNORED
        yield way, "loss", reference.sample_mean(nll, valid)
        yield way, "residual", reference.sample_mean(residual_sq, valid).sqrt()


def token_scores(
    model: torch.nn.Module, way: Fidelity, batch: dict, device: str
) -> tuple[torch.Tensor, ...]:
    """Return the loss, squared residual and label of each token."""
    reduction = ReducedForward(way, model, text=True)
    batch = reduction.batch(batch)
    labels = F.pad(batch["labels"][:, 1:], (0, 1), value=reference.IGNORED)
    with torch.no_grad(), _autocast(device), reduction.forward(()):
        logits = model({key: value for key, value in batch.items() if key != "labels"})[
            "logits"
        ].float()
    return (*reference.token_scores(logits, labels), labels)


def frontier(
    quick: bool, device: str = "cpu", data: Path | None = None, kinds: Sequence[str] = tuple(MODELS)
) -> dict:
    """Measure costs and ranks of all methods, and compare them with the targets."""
    sizes = SIZES["quick" if quick else device]
    result: list[dict] = []
    said = {}
    for kind in kinds:
        size, cost_size = sizes[kind], sizes[f"{kind}_cost"]
        s = cost(
            kind,
            cost_size,
            size.layers,
            device,
            1.0 if quick else 120.0,
            "reference" if quick else "auto",
            quick,
        )
        entries, about = ranks(kind, size, device, data, quick)
        result += [{**entry, "s": round(s[entry["way"]], 4)} for entry in entries]
        said[kind] = {**about, "ranks_of": vars(size), "s_of": vars(cost_size)}
    return {
        "frontier": result,
        "frontier_targets": {kind: target(result, kind) for kind in kinds},
        "frontier_about": said,
    }


def again(result: dict, kinds: Sequence[str], device: str) -> dict:
    """Measure only ``s`` of an earlier result again, for example if the machine was busy."""
    quick = bool(result.get("quick"))
    sizes = SIZES["quick" if quick else device]
    for kind in kinds:
        s = cost(kind, sizes[f"{kind}_cost"], sizes[kind].layers, device, 60.0, "auto", quick)
        for entry in result["frontier"]:
            if entry["model"] == kind:
                entry["s"] = round(s[entry["way"]], 4)
        result["frontier_targets"][kind] = target(result["frontier"], kind)
    return result | {"s_measured_again": kinds}


def target(entries: list[dict], kind: str) -> dict:
    """Return the best of the cheap methods at half of the run, and whether it meets the target."""
    most, least = TARGETS[kind]
    half = [
        e
        for e in entries
        if (e["model"], e["at"], e["score"]) == (kind, AT[-1], "loss") and e["s"] <= most
    ]
    best = max(half, key=lambda entry: entry["spearman"], default=None)
    return {
        "s_at_most": most,
        "spearman_at_least": least,
        "met": best is not None and best["spearman"] >= least,
        "best": best,
    }


def plot(result: dict, file: Path) -> None:
    """Plot agreement over cost in a panel for each model, with a line along the frontier."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = [entry for entry in result["frontier"] if entry["score"] == "loss"]
    kinds = list(result["frontier_targets"])
    figure, axes = pyplot.subplots(
        1, len(kinds), figsize=(6 * len(kinds), 4.6), constrained_layout=True, squeeze=False
    )
    for axis, kind in zip(axes[0], kinds, strict=True):
        for at, colour in zip(AT, ("#bbbbbb", "#7799cc", "#223366"), strict=True):
            entries = sorted(
                (e for e in shown if e["model"] == kind and e["at"] == at), key=lambda e: e["s"]
            )
            axis.scatter(
                [e["s"] for e in entries],
                [e["spearman"] for e in entries],
                color=colour,
                s=18,
                label=f"{at:.0%}",
            )
            best = [
                e
                for i, e in enumerate(entries)
                if all(e["spearman"] > other["spearman"] for other in entries[:i])
            ]
            axis.step(
                [e["s"] for e in best],
                [e["spearman"] for e in best],
                color=colour,
                where="post",
                linewidth=1,
            )
            if at == AT[-1]:
                for entry in best:
                    label = entry["way"].replace("_", " ")
                    axis.annotate(
                        label,
                        (entry["s"], entry["spearman"]),
                        fontsize=7,
                        xytext=(3, -9),
                        textcoords="offset points",
                    )
        most, least = TARGETS[kind]
        axis.fill_between([0, most], least, 1.0, color="#dfeedd", zorder=0, label="target")
        axis.set(
            xlabel="cost of scoring a candidate, in forwards",
            ylabel="rank correlation with the full score",
            title=kind,
        )
        axis.set_xlim(0, 1.1)
        axis.set_ylim(0.6, 1.01)  # Only hardly trained models rank worse.
        axis.legend(title="of the run", fontsize=8)
    figure.savefig(file, dpi=110)


def _autocast(device: str):
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with texts and images")
    parser.add_argument("--quick", action="store_true", help="small models: about 15 s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="measure only the costs of an earlier result"
    )
    parser.add_argument("--only", choices=MODELS, help="measure one model")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    parser.add_argument("--plot", type=Path, help="draw the frontier here (png)")
    args = parser.parse_args()
    begin = time.perf_counter()
    kinds = [args.only] if args.only else list(MODELS)
    if args.again:
        _save(again(json.loads(args.again.read_text()), kinds, args.device), args)
        return
    result = frontier(args.quick, args.device, args.data, kinds)
    name = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    result |= {
        "quick": args.quick,
        "torch": torch.__version__,
        "on": name,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    _save(result, args)


def _save(result: dict, args: argparse.Namespace) -> None:
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        plot(result, args.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
