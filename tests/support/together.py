"""Ranks of one job as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
TOOLS = SUPPORT.parents[1] / "tools"
sys.path.insert(0, str(TOOLS))
from zygote import until  # noqa: E402


def run_together(program: str, arguments: list[list[str]], *, folder: Path, timeout: float) -> None:
    """Run a program of this folder once for each list of arguments, and wait until all have ended
    well.

    Args:
        program: Its file name.
        arguments: Of each rank.
        folder: Where what they print is kept.
        timeout: Seconds that they have.

    Raises:
        AssertionError: One ended with an error (the others are ended then, they would wait for it),
            or time was up.
    """
    said = [folder / f"said{rank}.txt" for rank in range(len(arguments))]
    path = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ranks = []
    try:
        for given, text in zip(arguments, said, strict=True):
            with open(text, "w") as file:
                command = [sys.executable, str(SUPPORT / program), *given]
                ranks.append(subprocess.Popen(command, stdout=file, stderr=file, env=env))
        done = until(
            lambda: any(rank.poll() for rank in ranks) or all(rank.poll() == 0 for rank in ranks),
            timeout,
        )
        assert done and [rank.poll() for rank in ranks] == [0] * len(ranks), "\n".join(
            text.read_text()[-3000:] for text in said
        )
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
