"""What the tests of the configuration share."""

from pathlib import Path

import pytest
from base_run import BASE


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    return path
