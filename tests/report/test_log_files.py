"""Where the logs of a run are."""

import pytest

from attent_stream.report.errors import LogError
from attent_stream.report.log_files import log_of


def log(folder) -> str:
    folder.mkdir(parents=True)
    (folder / "metrics-0.parquet").write_bytes(b"")
    return str(folder)


def test_they_are_in_the_folder_or_the_only_ones_below_it(tmp_path):
    own = log(tmp_path / "runs" / "a" / "choices")
    assert log_of(own) == own and log_of(str(tmp_path / "runs" / "a")) == own
    shared = log(tmp_path / "shared" / "choices" / "b")
    assert log_of(str(tmp_path / "shared")) == log_of(str(tmp_path / "shared/choices")) == shared
    for none in (str(tmp_path / "nowhere"), "s3://bucket/a"):
        assert log_of(none) == none


def test_of_several_runs_one_must_be_given(tmp_path):
    found = [log(tmp_path / "choices" / name) for name in ("a", "b")]
    with pytest.raises(LogError, match=f"logs of several runs: give {found[0]} or {found[1]}$"):
        log_of(str(tmp_path))
