"""Write a page on what runs have kept, dropped and measured, from their folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from attent_stream.base.remote import is_remote
from attent_stream.report.choices import has_choices, read_choices
from attent_stream.report.errors import LogError
from attent_stream.report.log_files import local_files, log_of
from attent_stream.report.metrics import read_measured
from attent_stream.report.page import page, rows_of, shown_samples
from attent_stream.report.samples import SampleReader

USER_ERROR = 2


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="attent-stream report", description=__doc__)
    made.add_argument(
        "run", nargs="+", metavar="[NAME=]FOLDER", help="folders of checkpoints, or of logs"
    )
    made.add_argument("--out", default="report.html", metavar="FILE", help="(report.html)")
    made.add_argument("--each", type=int, default=40, metavar="N", help="samples of a kind (40)")
    made.add_argument("--tokenizer", metavar="FOLDER", help="the one beside the data")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, and return the exit code: 0, or 2 with one sentence on stderr."""
    given = parser().parse_args(argv)
    try:
        if given.each < 1:
            raise LogError(f"--each: expected at least 1, got {given.each}")
        runs, measured, samples = {}, {}, []
        for spec in given.run:
            name, place = _named(spec)
            folder = log_of(place)
            if name in measured:
                raise LogError(f"two runs are named {name!r}: give NAME=FOLDER")
            with local_files(folder) as path:  # fetched once
                measured[name] = read_measured(path, told=folder)
                if measured[name].curves and not has_choices(path):
                    continue  # a plain run, to compare with
                runs[name] = choices = read_choices(path, told=folder)
            with SampleReader(choices.streams, given.tokenizer) as reader:
                samples += rows_of(name, choices, reader, shown_samples(choices, given.each))
        Path(given.out).write_text(page(runs, measured, samples), "utf-8")
    except LogError as error:
        print(f"attent-stream: error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(f"attent-stream: error: {given.out}: {error.strerror}", file=sys.stderr)
        return USER_ERROR
    print(f"Page: {given.out} ({len(samples)} samples)")
    return 0


def _named(spec: str) -> tuple[str, str]:
    """A run's name and folder: what was given, or the folder's own name."""
    name, equals, folder = spec.partition("=")
    if equals and not Path(spec).exists() and "/" not in name:
        return name, folder
    path = PurePosixPath(spec) if is_remote(spec) else Path(spec).absolute()
    return (path.parent.name if path.name == "choices" else path.name), spec


if __name__ == "__main__":
    sys.exit(main())
