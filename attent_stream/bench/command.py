"""``attent-stream bench``: run the benches of YAML files, and say what came of them."""

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
    """Run them; returns the exit code: 0, or 2 and one sentence on stderr after a user's
    mistake.
    """
    given = _parser().parse_args(argv)
    # Threads that spin while they wait make a step 30 times slower once another program wants a
    # core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        benches = [load_bench(path) for path in given.yaml]
        names = [bench.task for bench in benches]
        if len(set(names)) != len(names):
            raise ConfigError(
                f"task: expected a different name in each file, received {', '.join(names)}"
            )
        data = None if given.data is None else Path(given.data)
        if data is not None and not data.is_dir():
            raise ConfigError(f"--data: expected a folder, received {given.data!r}")
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
        "yaml", nargs="+", metavar="YAML", help="a task and its arms, see yamls/bench/"
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="of the sources; without it, what every machine has"
    )
    parser.add_argument(
        "--out", default="runs/bench", metavar="FOLDER", help="a re-run goes on from what it holds"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds")
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="put the rows into this quality.json, over older ones of the task",
    )
    parser.add_argument(
        "--report", action="store_true", help="train nothing, report what has been run"
    )
    return parser


def _one(path: str, bench: BenchConfig, data: Path | None, given: argparse.Namespace) -> list[str]:
    from attent_stream.bench.compare import compare
    from attent_stream.bench.curves import curves, png
    from attent_stream.bench.page import heading, lines, quality_rows, section, table
    from attent_stream.bench.runs import BenchRun

    out = Path(given.out) / bench.task
    records = BenchRun(bench, data, out, say=_say).run(given.seeds, train=not given.report)
    try:
        found = compare(bench, records)
    except ValueError as error:
        print(error)
        return []
    picture = png(curves(bench, records, found))
    (out / "curves.png").write_bytes(picture)
    text = "\n".join([heading(bench, records, found), table(bench, found), *lines(bench, found)])
    (out / "table.txt").write_text(text + "\n", "utf-8")
    print(f"\n{text}\n")
    if given.results is not None:
        told = "FOLDER" if data is not None else None
        command = f"attent-stream bench {path}" + (f" --data {told}" if told else "")
        update_quality(Path(given.results), quality_rows(bench, records, found, command))
    return [section(bench, records, found, picture)]


def update_quality(path: Path, rows: list[dict]) -> None:
    """Put rows into a quality.json in place of those of their tasks on the same hardware; the file
    is replaced at once.
    """
    old = json.loads(path.read_text("utf-8")) if path.is_file() else []
    new = {(row["task"], row["hardware"]) for row in rows}
    kept = [row for row in old if (row["task"], row["hardware"]) not in new]
    half = path.with_suffix(".half")
    half.write_text(json.dumps(kept + rows, indent=1) + "\n", "utf-8")
    half.replace(path)


def _say(line: str) -> None:
    print(line, flush=True)
