"""The soak, for a minute: ``tools/soak.py`` says what it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_minute_of_kills():
    command = [sys.executable, str(SOAK), "--minutes", "1", "--epochs", "3", "--seed", "1"]
    ran = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert summary["ids_equal"] and summary["kills"] > 0
    assert summary["resumes_on"]
    assert (summary["shm_left"], summary["processes_left"], summary["hung"]) == (0, 0, 0)
    assert summary["rss_growth"] < 0.1
