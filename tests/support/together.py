"""Ranks of one job as processes of their own."""

import atexit
import functools
import os
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
TOOLS = SUPPORT.parents[1] / "tools"
sys.path.insert(0, str(TOOLS))
from zygote import Zygote, until  # noqa: E402


@functools.cache
def _imported() -> Zygote:
    """Forks ranks, which need not import Composer again: that takes longer than most jobs."""
    made = Zygote(["composer", "streaming", "transformers"], [str(SUPPORT), str(TOOLS)])
    atexit.register(made.close)
    return made


def run_together(program: str, arguments: list[list[str]], *, folder: Path, timeout: float) -> None:
    """Run a program of this folder once for each list of arguments, and wait until all have ended
    well.

    Args:
        program: Its file name. Its function ``main`` takes the arguments.
        arguments: Of each rank.
        folder: Where what they print is kept.
        timeout: Seconds that they have.

    Raises:
        AssertionError: One ended with an error (the others are ended then, they would wait for it),
            or time was up.
    """
    function = f"{Path(program).stem}:main"
    env = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    env["OMP_NUM_THREADS"] = "1"
    ranks = []
    try:
        for rank, given in enumerate(arguments):
            said = folder / f"said{rank}.txt"
            ranks.append(_imported().start(function, *given, said=said, env=env))
        done = until(
            lambda: any(rank.poll() for rank in ranks) or all(rank.poll() == 0 for rank in ranks),
            timeout,
        )
        assert done and [rank.poll() for rank in ranks] == [0] * len(ranks), "\n".join(
            rank.said[-3000:] for rank in ranks
        )
    finally:
        for rank in ranks:
            rank.kill()
