"""Train a small language model on Python's own sources, with and without AtteNT, on CPU cores."""

import argparse
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attent_stream.demo.settings import ARMS, FULL, QUICK, DemoSettings

USER_ERROR = 2
NOTE = (
    "How to read it: this is one pass over clean text. The published method scores every "
    "candidate with a forward pass,\n"
    "so its lessons must beat random ones by that cost. The default (taught) starts with short "
    "pieces of samples and\n"
    "balances batches. With one seed, differences of a few hundredths of a nat can be chance."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, and return the exit code: 0, or 2 with one sentence on stderr."""
    given = _parser().parse_args(argv)
    settings = QUICK if given.quick else FULL
    if given.steps is not None:
        settings = settings.with_steps(given.steps)
    _environment()
    print("Loading torch, Composer and Streaming ...", flush=True)
    from attent_stream.corpus import CorpusError

    try:
        _run(Path(given.out), given.arms, settings)
    except CorpusError as error:
        print(f"attent-stream: error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attent-stream demo",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out", default="runs/demo", metavar="FOLDER", help="folder of corpus, results and picture"
    )
    parser.add_argument(
        "--arms",
        default="uniform,published,taught",
        type=_arms,
        metavar="NAME,...",
        help=f"some of {', '.join(ARMS)}",
    )
    parser.add_argument(
        "--steps", type=_steps, metavar="N", help=f"lesson batches of each arm ({FULL.steps})"
    )
    parser.add_argument(
        "--quick", action="store_true", help="train a tiny model for a few steps, as a test"
    )
    return parser


def _arms(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in ARMS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(ARMS)}, got {name!r}")
    return names


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 8:
        raise argparse.ArgumentTypeError(f"expected a whole number from 8, got {text!r}")
    return int(text)


def _environment() -> None:
    """Restrict torch, before its import, to the CPU, and hide the libraries' warnings."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # The model is sized for CPU cores.
    # Spinning threads make a step 30 times slower when another program uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.simplefilter("ignore")
    for name in ("composer", "streaming", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(out: Path, arms: Sequence[str], settings: DemoSettings) -> None:
    import torch

    from attent_stream.corpus import CorpusError
    from attent_stream.corpus.parallel import available_cores
    from attent_stream.demo.arm import Shards, run_arm
    from attent_stream.demo.corpus import (
        HELD_OUT,
        STREAM,
        make_corpus,
        python_sources,
        standard_library,
    )
    from attent_stream.demo.picture import picture
    from attent_stream.demo.report import clock, comparison, json_line, table

    # Importing Composer makes Ctrl-C a silent exit; the command line prints a line.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if out.exists() and not out.is_dir():
        raise CorpusError(f"--out must be a folder, got the file {out}")
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "cache", ignore_errors=True)  # Left by a killed run.
    torch.set_num_threads(available_cores())

    library = standard_library()
    files = python_sources(library)[:: settings.every_file]
    print(
        f"Corpus: {len(files):,} files of {library}: BPE tokenizer, tokens, MDS shards ...",
        flush=True,
    )
    manifest, reused = make_corpus(
        files,
        out / "corpus",
        vocab_size=settings.vocab_size,
        seq_len=settings.seq_len,
        held_out=settings.held_out,
    )
    counted = [
        f"{manifest.total('documents', s):,} files, {manifest.total('tokens', s):,} tokens"
        for s in manifest.splits
    ]
    again = " (made before)" if reused else ""
    print(
        f"        {counted[0]} to train on; held out: {counted[1]}; vocabulary "
        f"{manifest.vocab_size:,}{again}"
    )
    for bad in manifest.bad:
        print(f"        left out: {bad.count} x {bad.reason}, e.g. {bad.first[0]}")

    shards = Shards(
        train=(out / "corpus" / STREAM / "train").absolute(),
        held_out=(out / "corpus" / STREAM / HELD_OUT).absolute(),
        cache=(out / "cache").absolute(),
        vocab_size=manifest.vocab_size,
    )
    tokens = settings.steps * settings.batch_size * settings.seq_len
    print(
        f"Arms: {', '.join(arms)}; each {settings.steps} lesson batches = {tokens:,} tokens, same "
        "weights, same order"
    )
    # Warm up, because the first steps of a process pay for imports and buffers.
    run_arm(
        arms[-1],
        shards,
        replace(settings, steps=2, eval_every=2, eval_samples=1, warmup=1),
        show=False,
    )
    results = []
    lines = out / "results.jsonl"
    lines.write_text("", "utf-8")
    for arm in arms:
        results.append(run_arm(arm, shards, settings))
        last = results[-1].last
        print(
            f"        {arm}: held-out loss {last.loss:.4f} after {clock(last.seconds)}", flush=True
        )
        with lines.open("a", encoding="utf-8") as file:
            file.write(json_line(results[-1]) + "\n")

    parameters = results[0].settings["parameters"]
    title = (
        f"A LLaMA of {parameters / 1e6:.1f}M parameters on Python's standard library, {tokens:,} "
        "tokens each arm"
    )
    picture(results, title, _score_name(settings)).savefig(out / "picture.png", dpi=120)
    print(f"\n{table(results)}\n\n{comparison(results)}\n{NOTE}\n")
    print(f"Numbers: {lines}\nPicture: {out / 'picture.png'}")


def _score_name(settings: DemoSettings) -> str:
    units = {
        "residual": "residual norm ‖f − f*‖ per sample, between 0 and √2",
        "loss": "loss in nats per token",
    }
    return units[settings.score]
