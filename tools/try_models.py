"""Run the jobs of ``tests/support/field_models.py`` with ``AtteNT()``, and print a Markdown table.

``python tools/try_models.py [WORD]`` runs the jobs with WORD in their name, or all (three minutes).
"""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
from field_jobs import Job  # noqa: E402
from field_models import JOBS  # noqa: E402
from field_run import Result, run_job  # noqa: E402
from streaming_memory import streaming_cleaned_up  # noqa: E402

from attent_stream import AtteNT  # noqa: E402

_HEAD = (
    "model",
    "what is scored",
    "largest difference",
    "batches with and without",
    "by name: `hard`, `loss`",
)
_LONGEST = 300  # Characters of a warning or an error.


def main(word: str = "") -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    for name in ("composer", "transformers", "streaming"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("attent_stream").propagate = False
    rows = [_row(job) for job in JOBS if word in job.name]
    for row in (_HEAD, ["---"] * len(_HEAD), *rows):
        print("| " + " | ".join(row) + " |")


def _row(job: Job) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, streaming_cleaned_up():
        path = Path(folder) / "set"
        job.write(path)
        plain = run_job(job, path)
        taught = run_job(job, path, AtteNT())
        named = run_job(job, path, AtteNT(select="hard", score="loss", keep=0.5), epochs=1)
    if plain.error is not None:
        raise plain.error
    batches = f"{len(taught.losses)} and {len(plain.losses)}"
    if not taught.taught and taught.error is None and taught.losses != plain.losses:
        batches += ", **other losses**"
    return [job.name, _scored(taught), _difference(taught, job), batches, _named(named, job)]


def _scored(result: Result) -> str:
    if result.error is not None:
        return f"**the run ends**: {_said(result.error)}"
    if not result.scored:
        if not result.warnings:
            return "nothing: it is not taught by default"
        return f"nothing: plain, because {_reason(_short(result.warnings[0]))}"
    kinds = sorted({(some.by, some.score) for some in result.scored})
    counts = [
        f"{sum((s.by, s.score) == kind for s in result.scored)} batches of {kind[0]}: {kind[1]}"
        for kind in kinds
    ]
    return "; ".join(counts)


def _difference(result: Result, job: Job) -> str:
    difference = result.difference(job)
    if difference is None:
        return "-"
    return f"{difference:.0e}" if difference <= job.close else f"**{difference:.2g}**"


def _named(result: Result, job: Job) -> str:
    if result.error is None:
        return f"scored, {_difference(result, job)}"
    kind = "refused" if isinstance(result.error, ValueError) and result.steps == 0 else "**ends**"
    return f"{kind} after {result.steps} steps: {_reason(_said(result.error))}"


def _said(error: Exception) -> str:
    return _short(f"{type(error).__name__}: {error}")


def _reason(text: str) -> str:
    """Return the text between "as" and the advice in a warning or an error."""
    reason = text.partition(", as ")[2] or text
    for end in (": training goes on", "; give score"):
        reason = reason.partition(end)[0]
    return reason


def _short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


if __name__ == "__main__":
    main(*sys.argv[1:])
