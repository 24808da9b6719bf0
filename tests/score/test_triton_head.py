"""The Triton kernel, in Triton's interpreter and compiled for GPUs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_cases(what: str, **environment: str) -> None:
    program = str(Path(__file__).parents[1] / "support" / "head_cases.py")
    found = subprocess.run(
        [sys.executable, program, what],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == 0 and found.stdout.startswith("ok"), found.stderr[-3000:]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton on this platform")
@pytest.mark.parametrize("what, interpret", [("interpret", "1"), ("compile", "0")])
def test_the_triton_kernel(what, interpret):
    run_cases(what, TRITON_INTERPRET=interpret)
