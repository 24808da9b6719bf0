"""Run the tasks of yamls/bench, without repeating finished runs, and store dated results.

    python tools/bench_quality.py --data FOLDER      # CPU sizes, all tasks, three seeds
    python tools/bench_quality.py --data FOLDER --tasks repeated,vit --seeds 1
    python tools/bench_quality.py --data FOLDER --tasks h200/lm_125m,h200/vit_s --seeds 1

``tools/results/quality.json`` holds the latest rows of each task and machine, and
``DATE-bench-TASK.jsonl`` their runs.
"""

import argparse
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

from attent_stream.bench.command import main as bench
from attent_stream.bench.settings import load_bench

HERE = Path(__file__).resolve().parent
YAMLS = HERE.parent / "yamls" / "bench"
RESULTS = HERE / "results"
TASKS = ("repeated", "vit", "vit_wrong", "noise", "finetune", "mix", "clean", "skips")


def main() -> int:
    """Run the tasks, store the results, and return the bench's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="FOLDER")
    parser.add_argument("--out", default="runs/bench", metavar="FOLDER")
    parser.add_argument("--tasks", default=",".join(TASKS), metavar="NAME,...")
    parser.add_argument("--seeds", type=int, metavar="N")
    parser.add_argument("--report", action="store_true", help="report without training")
    given = parser.parse_args()
    paths = [YAMLS / f"{name}.yaml" for name in given.tasks.split(",")]
    arguments = [
        str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        for path in paths
    ]
    arguments += ["--out", given.out, "--results", str(RESULTS / "quality.json")]
    arguments += ["--data", given.data] if given.data else []
    arguments += ["--seeds", str(given.seeds)] if given.seeds else []
    code = bench([*arguments, *(["--report"] if given.report else [])])
    if code == 0:
        day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        for path in paths:
            task = load_bench(path).task
            for name, end in (("runs.jsonl", "jsonl"), ("table.txt", "txt"), ("curves.png", "png")):
                made = Path(given.out) / task / name
                if made.is_file():
                    shutil.copyfile(made, RESULTS / f"{day}-bench-{task}.{end}")
    return code


if __name__ == "__main__":
    sys.exit(main())
