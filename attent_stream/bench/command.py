"""Run the benches of YAML files, and report their results."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from attent_stream.bench.settings import BenchConfig, load_bench
from attent_stream.corpus.errors import CorpusError
from attent_stream.launch.config_check import ConfigError

USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benches, and return the exit code: 0, or 2 with one sentence on stderr."""
    given = _parser().parse_args(argv)
    # Spinning threads make a step 30 times slower when another program uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        benches = [load_bench(path) for path in given.yaml]
        names = [bench.task for bench in benches]
        if len(set(names)) != len(names):
            raise ConfigError(f"task: expected different names, got {', '.join(names)}")
        if given.jobs < 1:
            raise ConfigError(f"--jobs: expected at least 1, got {given.jobs}")
        data = None if given.data is None else Path(given.data)
        if data is not None and not data.is_dir():
            raise ConfigError(f"--data: expected a folder, got {given.data!r}")
        sections = []
        for path, bench in zip(given.yaml, benches, strict=True):
            sections += _one(path, bench, data, given)
        if sections:
            from attent_stream.bench.page import page

            (Path(given.out) / "bench.html").write_text(page(sections), "utf-8")
            print(f"Page: {Path(given.out) / 'bench.html'}")
    except (ConfigError, CorpusError) as error:
        print(f"attent-stream: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attent-stream bench",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "yaml", nargs="+", metavar="YAML", help="tasks and their arms, see yamls/bench/"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="sources of the data; default: Python's standard library, or drawn shapes",
    )
    parser.add_argument(
        "--out", default="runs/bench", metavar="FOLDER", help="results; finished runs are kept"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each a process; times are less exact then",
    )
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="write the rows to this quality.json, replacing the task's older ones",
    )
    parser.add_argument(
        "--report", action="store_true", help="report the finished runs without training"
    )
    return parser


def _one(path: str, bench: BenchConfig, data: Path | None, given: argparse.Namespace) -> list[str]:
    from attent_stream.bench.compare import compare
    from attent_stream.bench.curves import curves, png
    from attent_stream.bench.page import heading, lines, quality_rows, section, table
    from attent_stream.bench.runs import BenchRun

    out = Path(given.out) / bench.task
    run = BenchRun(bench, data, out, say=_say, processes=given.jobs)
    records = run.run(given.seeds, train=not given.report)
    try:
        found = compare(bench, records)
    except ValueError as error:
        print(error)
        return []
    picture = png(curves(bench, records, found))
    (out / "curves.png").write_bytes(picture)
    said = lines(bench, records, found)
    text = "\n".join([heading(bench, records, found), table(bench, found), *said])
    (out / "table.txt").write_text(text + "\n", "utf-8")
    print(f"\n{text}\n")
    if given.results is not None:
        command = f"attent-stream bench {path}" + ("" if data is None else " --data FOLDER")
        update_quality(Path(given.results), quality_rows(bench, records, found, command))
    return [section(bench, records, found, picture)]


def update_quality(path: Path, rows: list[dict]) -> None:
    """Replace the rows of the same tasks and hardware in a quality.json, atomically."""
    old = json.loads(path.read_text("utf-8")) if path.is_file() else []
    new = {(row["task"], row["hardware"]) for row in rows}
    kept = [row for row in old if (row["task"], row["hardware"]) not in new]
    half = path.with_suffix(".half")
    half.write_text(json.dumps(kept + rows, indent=1) + "\n", "utf-8")
    half.replace(path)


def _say(line: str) -> None:
    print(line, flush=True)
