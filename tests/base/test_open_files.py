"""Runs with too few file descriptors, and errors that say so."""

import errno
import json
import resource
import tempfile

import pytest
from corpora import write_ids

from attent_stream.base.errors import CollateError, OpenFilesError
from attent_stream.base.open_files import EXIT_CODE, is_out_of_files, open_files_error

CASES = {
    "the trainer cannot receive a tensor": (60, [1], 2, True),
    "without a teacher": (60, [1], 2, False),
    "a worker cannot send a batch": (60, [40], 2, True),
    "workers cannot be started": (22, [1], 2, True),
    "a collate function opens files": (60, [0, 80], 0, True),
    "one in a worker does": (60, [0, 80], 2, True),
    "the data set cannot be made": (5, [0], 0, True),
}


@pytest.mark.processes
@pytest.mark.parametrize("case", CASES)
def test_too_few_descriptors_are_named(zygote, tmp_path, case):
    few, name, text = trained(zygote, tmp_path, *CASES[case])
    assert name == OpenFilesError.__name__, text
    said = f'("Too many open files"; the limit is {few} for each process): run \'ulimit -n '
    assert said in text


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_stay_as_they_are(zygote, tmp_path, workers):
    assert trained(zygote, tmp_path, 400, [0], workers, True)[1:] == ["nothing", ""]
    name, text = trained(zygote, tmp_path, 400, [0, 0, "the disk is bad"], workers, True)[1:]
    assert name == CollateError.__name__ and "the disk is bad" in text


def trained(zygote, tmp_path, few, collate, workers, taught):
    report, folder = tmp_path / "report", tmp_path / "data"
    folder.exists() or write_ids(folder, 256)
    given = ("store_jobs:train_with_few", str(folder), few, collate, workers, taught, str(report))
    with tempfile.TemporaryDirectory() as short:  # sockets lie in it, whose paths must be short
        process = zygote.start(*given, said=tmp_path / "said", env={"TMPDIR": short})
        assert process.wait(120) == 0, process.said
    return json.loads(report.read_text())


def test_an_error_or_its_causes_say_so():
    cause = OSError(errno.EMFILE, "x")
    for error in (
        cause,
        RuntimeError("received 0 items of ancdata"),
        RuntimeError(f"DataLoader worker (pid 3) exited unexpectedly with exit code {EXIT_CODE}"),
        raised_from(cause, hidden=False),
    ):
        assert is_out_of_files(error)
    for error in (
        OSError(errno.ENFILE, "Too many open files in system"),
        RuntimeError(f"DataLoader worker (pid 3) exited unexpectedly with exit code {EXIT_CODE}0"),
        raised_from(cause, hidden=True),
    ):
        assert not is_out_of_files(error)
    loop = ValueError("x")
    loop.__cause__ = loop
    assert not is_out_of_files(loop)


def raised_from(context, hidden):
    error = ValueError("x")
    error.__context__, error.__suppress_context__ = context, hidden
    return error


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((1024, 4096), "limit is 1024 for each process): run 'ulimit -n 4096' in"),
        ((1024, 1 << 20), "run 'ulimit -n 65536' in"),
        ((1024, resource.RLIM_INFINITY), "run 'ulimit -n 65536' in"),
        ((4096, 4096), "raise the hard limit, which is the same, and then run 'ulimit -n 65536'"),
    ],
)
def test_the_cure_depends_on_the_limits(monkeypatch, limits, said):
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert said in str(open_files_error("rank 0"))
