"""Print what a run has kept and dropped, from the folder of its checkpoints or its log."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from attent_stream.demo.report import aligned
from attent_stream.report.choices import (
    ORDERS,
    Choices,
    SampleHistory,
    histories,
    read_choices,
    sorted_by,
)
from attent_stream.report.errors import LogError
from attent_stream.report.log_files import log_of
from attent_stream.report.samples import SampleReader

USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Print, and return the exit code: 0, or 2 with one sentence on stderr."""
    given = parser().parse_args(argv)
    try:
        if given.top < 1:
            raise LogError(f"--top: expected at least 1, got {given.top}")
        choices = read_choices(log_of(given.folder))
        found = _wanted(choices, given)
        print(summary(choices))
        print()
        with SampleReader(choices.streams, given.tokenizer) as reader:
            print(aligned_left(_rows(choices, found[: given.top], reader, given.width)))
        if len(found) > given.top:
            print(f"... and {len(found) - given.top:,} others")
    except LogError as error:
        print(f"attent-stream: error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="attent-stream inspect", description=__doc__)
    made.add_argument("folder", metavar="FOLDER", help="the folder of the run's checkpoints or log")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--kept", action="store_true", help="samples that were ever kept")
    which.add_argument("--dropped", action="store_true", help="samples that were ever dropped")
    made.add_argument("--stream", metavar="NAME", help="only this stream")
    made.add_argument("--top", type=int, default=20, metavar="N", help="so many samples (20)")
    made.add_argument(
        "--by", choices=ORDERS, help="order (highest; with --dropped: dropped; with --kept: kept)"
    )
    made.add_argument("--tokenizer", metavar="FOLDER", help="the one beside the data")
    made.add_argument("--width", type=int, default=100, help="characters of a sample (100)")
    return made


def _wanted(choices: Choices, given: argparse.Namespace) -> list[SampleHistory]:
    found = histories(choices)
    if given.kept:
        found = [one for one in found if one.kept]
    if given.dropped:
        found = [one for one in found if one.kept < one.seen]
    if given.stream is not None:
        names = [stream.name for stream in choices.streams]
        if given.stream not in names:
            raise LogError(f"--stream: expected one of {', '.join(names)}, got {given.stream!r}")
        found = [one for one in found if names[one.stream] == given.stream]
    default = "dropped" if given.dropped else "kept" if given.kept else "highest"
    return sorted_by(found, given.by or default)


def summary(choices: Choices) -> str:
    """How much was logged and kept, in all and of each stream."""
    rows = choices.rows
    windows = len(np.unique(np.stack([rows["epoch"], rows["window"]]), axis=1).T)
    lines = [
        f"{windows:,} windows, {len(rows['sample']):,} logged candidates of "
        f"{len(np.unique(rows['sample'])):,} samples, {100 * rows['kept'].mean():.1f}% kept"
    ]
    if len(choices.streams) > 1:
        for number, stream in enumerate(choices.streams):
            of = rows["stream"] == number
            kept = f"{100 * rows['kept'][of].mean():.1f}% kept" if of.any() else "none logged"
            lines.append(f"  {stream.name}: {of.sum():,} candidates, {kept}")
    return "\n".join(lines)


def _rows(
    choices: Choices, found: Sequence[SampleHistory], reader: SampleReader, width: int
) -> list[tuple[str, ...]]:
    rows = [("stream", "sample", "seen", "kept", "score", "rank", "what")]
    for one in found:
        score = f"{one.score:.4f}" if np.isfinite(one.score) else "-"
        rank = f"{one.rank:.2f}" if np.isfinite(one.rank) else "-"
        name = choices.streams[one.stream].name
        text = reader.line(one.stream, one.sample, width)
        rows.append((name, str(one.sample), str(one.seen), str(one.kept), score, rank, text))
    return rows


def aligned_left(rows: Sequence[tuple[str, ...]]) -> str:
    """A table whose last column is text, which is not padded."""
    table = aligned([row[:-1] for row in rows]).splitlines()
    texts = [rows[0][-1], "-" * len(rows[0][-1]), *(row[-1] for row in rows[1:])]
    return "\n".join(f"{line}  {text}" for line, text in zip(table, texts, strict=True))


if __name__ == "__main__":
    sys.exit(main())
