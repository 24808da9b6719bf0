"""The command line `attent-stream`. Handlers import what they need, so that --help is fast."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from attent_stream.base.redaction import MaskedParser, mask_process, masked_text

USER_ERROR = 2
INTERRUPTED = 130


# Commands with a parser of their own, which gets all other arguments, --help too.
FORWARDED = {
    "train": (
        "attent_stream.train",
        "train from a YAML: attent-stream train FILE.yaml [key=value ...]",
    ),
    "bench": (
        "attent_stream.bench.command",
        "compare arms of a task with plain, shorter and random training: attent-stream bench "
        "FILE.yaml --data FOLDER",
    ),
    "inspect": (
        "attent_stream.report.inspect",
        "print what a run has kept and dropped: attent-stream inspect FOLDER --dropped",
    ),
    "report": (
        "attent_stream.report.command",
        "write a page of what runs have kept and dropped: attent-stream report FOLDER",
    ),
    "demo": (
        "attent_stream.demo.command",
        "pretrain a small model on Python's own sources, with and without AtteNT",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments. None: the process's.

    Returns:
        The exit status: 0, 2 with one sentence on stderr after a mistake, or 130 after Ctrl-C.

    Raises:
        SystemExit: argparse exits after --help (0) or a wrong argument (2).
    """
    if argv is None:
        mask_process()
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv and argv[0] in FORWARDED:
            return int(import_module(FORWARDED[argv[0]][0]).main(argv[1:]) or 0)
        arguments = parser().parse_args(argv)
        return arguments.handler(arguments)
    except KeyboardInterrupt:
        print("attent-stream: interrupted", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands but those that are forwarded."""
    made = MaskedParser(prog="attent-stream", description="AtteNT for streaming training.")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    corpus = commands.add_parser("corpus", help="write text, chats or images as MDS shards")
    kinds = corpus.add_subparsers(required=True, metavar="KIND")
    _add_text(kinds.add_parser("text", help="documents -> packed token samples", description=_TEXT))
    _add_chat(kinds.add_parser("chat", help="prompts and answers -> samples", description=_CHAT))
    _add_images(
        kinds.add_parser("images", help="class folders -> labelled images", description=_IMAGES)
    )
    for name, (_, text) in FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False)
    return made


_TEXT = (
    "Read .jsonl or .txt (also with .gz or .zst), .parquet, or folders of them. Train or load a "
    "tokenizer, and pack documents into samples of --seq-len tokens. Write MDS shards to "
    "OUT/STREAM/SPLIT, and OUT/tokenizer and OUT/manifest.json."
)
_CHAT = (
    'Read .jsonl (also with .gz or .zst), or folders of it. A line has "messages", a list of '
    '{"role", "content"}, or a "prompt" and an "answer". Write them as the chat template of the '
    "tokenizer says, with labels on what the assistant says. Write MDS shards to OUT/STREAM/SPLIT, "
    "and OUT/tokenizer and OUT/manifest.json."
)
_IMAGES = (
    "Read FOLDER/CLASS/*.jpg|jpeg|png, or FOLDER/{train,test,val}/CLASS. Write MDS shards to "
    "OUT/SPLIT, with the files' bytes (column image) and class numbers (column label), and "
    "OUT/manifest.json."
)


def _add_sources(parser: argparse.ArgumentParser, unit: str) -> None:
    parser.add_argument(
        "source", nargs="*", metavar="PATH", help="file, folder or NAME=PATH, a stream each"
    )
    parser.add_argument(
        "--stream",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="more streams; paths of the same name are one stream",
    )
    parser.add_argument(
        "--split",
        type=_split,
        action="append",
        default=[],
        metavar="NAME=FRACTION",
        help=f"hold out a share of {unit} by a hash of their text; the rest is train",
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser, "conversations")
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="FOLDER",
        help="local folder of a Hugging Face tokenizer, with a chat template or without",
    )
    parser.add_argument(
        "--seq-len",
        type=int,
        default=1024,
        metavar="N",
        help="the most tokens of a sample; what is longer is cut (1024)",
    )
    _add_common(parser, shard_size="8mb")
    parser.set_defaults(handler=_corpus_chat)


def _add_text(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser, "documents")
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument(
        "--tokenizer", metavar="PATH", help="local folder with tokenizer.json, or that file"
    )
    tokenizer.add_argument(
        "--train-tokenizer", action="store_true", help="train a byte-level BPE tokenizer"
    )
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="tokens of a trained tokenizer (32768)"
    )
    parser.add_argument(
        "--tokenizer-sample", default="64mb", metavar="SIZE", help="text to train it on (64mb)"
    )
    parser.add_argument(
        "--eos-token", metavar="TOKEN", help="token after each document (the tokenizer's)"
    )
    parser.add_argument(
        "--seq-len", type=int, default=512, metavar="N", help="tokens of a sample (512)"
    )
    parser.add_argument(
        "--text-key", default="text", metavar="KEY", help="key or column of the text (text)"
    )
    parser.add_argument(
        "--ext",
        action="extend",
        nargs="+",
        default=[],
        metavar="EXT",
        help="read only files with these endings in folders, e.g. --ext py md",
    )
    _add_common(parser, shard_size="8mb")
    parser.set_defaults(handler=_corpus_text)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=17, help="seed of the images' order (17)")
    _add_common(parser, shard_size="32mb")
    parser.set_defaults(handler=_corpus_images)


def _add_common(parser: argparse.ArgumentParser, shard_size: str) -> None:
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="output folder, or s3://bucket/path"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing corpus")
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (all cores)")
    parser.add_argument(
        "--shard-size", default=shard_size, metavar="SIZE", help=f"size of a shard ({shard_size})"
    )
    parser.add_argument("--compression", metavar="NAME[:LEVEL]", help="for shards, e.g. zstd")
    parser.add_argument(
        "--hash", action="append", default=[], metavar="NAME", help="for shards, e.g. xxh64"
    )
    parser.add_argument(
        "--progress", action="store_true", help="show progress even if stderr is no terminal"
    )


def _split(text: str) -> tuple[str, float]:
    name, equals, fraction = text.partition("=")
    try:
        return name, float(fraction)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=FRACTION, e.g. valid=0.02, got {text!r}"
        ) from None


def _common(arguments: argparse.Namespace) -> dict:
    from attent_stream.corpus.parallel import available_cores

    return {
        "out": arguments.out,
        "overwrite": arguments.overwrite,
        "workers": available_cores() if arguments.workers is None else arguments.workers,
        "shard_size": arguments.shard_size,
        "compression": arguments.compression,
        "hashes": tuple(arguments.hash),
        "progress": True if arguments.progress else None,
    }


def _corpus_text(arguments: argparse.Namespace) -> int:
    from attent_stream.corpus import (
        CorpusError,
        TextCorpusSettings,
        sources_from,
        write_text_corpus,
    )

    vocab_size = arguments.vocab_size
    try:
        if arguments.tokenizer and vocab_size is not None:
            raise CorpusError(
                "--vocab-size needs --train-tokenizer; a given tokenizer has its own size"
            )
        settings = TextCorpusSettings(
            sources=sources_from([*arguments.source, *arguments.stream]),
            tokenizer=arguments.tokenizer,
            vocab_size=(32768 if vocab_size is None else vocab_size)
            if arguments.train_tokenizer
            else None,
            tokenizer_sample=arguments.tokenizer_sample,
            eos_token=arguments.eos_token,
            seq_len=arguments.seq_len,
            splits=tuple(arguments.split),
            text_key=arguments.text_key,
            extensions=tuple(arguments.ext),
            **_common(arguments),
        )
        return _report(write_text_corpus(settings), arguments.out)
    except CorpusError as error:
        return _refuse(error)


def _corpus_chat(arguments: argparse.Namespace) -> int:
    from attent_stream.corpus import (
        ChatCorpusSettings,
        CorpusError,
        sources_from,
        write_chat_corpus,
    )

    try:
        settings = ChatCorpusSettings(
            sources=sources_from([*arguments.source, *arguments.stream]),
            tokenizer=arguments.tokenizer,
            seq_len=arguments.seq_len,
            splits=tuple(arguments.split),
            **_common(arguments),
        )
        return _report(write_chat_corpus(settings), arguments.out)
    except CorpusError as error:
        return _refuse(error)


def _corpus_images(arguments: argparse.Namespace) -> int:
    from attent_stream.corpus import CorpusError, ImageCorpusSettings, write_image_corpus

    try:
        settings = ImageCorpusSettings(
            folder=arguments.folder, seed=arguments.seed, **_common(arguments)
        )
        return _report(write_image_corpus(settings), arguments.out)
    except CorpusError as error:
        return _refuse(error)


def _report(manifest, out: str) -> int:
    rows = [("part", "documents", "samples", "tokens", "dropped")]
    rows += [
        (p.path, *(f"{n:,}" for n in (p.documents, p.samples, p.tokens, p.dropped_tokens)))
        for p in manifest.parts
    ]
    if manifest.kind == "images":
        rows = [row[:1] + row[2:3] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *numbers]))
    for bad in manifest.bad:
        first = ", ".join(bad.first)
        print(
            f"left out of {bad.stream}: {bad.count:,} x {bad.reason}, e.g. {first}", file=sys.stderr
        )
    for part in manifest.parts:
        if part.samples == 0:
            print(
                f"{part.path} has too little text for one sample and was not written",
                file=sys.stderr,
            )
    print(f"{masked_text(out)}: complete")
    return 0


def _refuse(error: Exception) -> int:
    print(f"attent-stream: error: {error}", file=sys.stderr)
    return USER_ERROR
