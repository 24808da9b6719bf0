"""The files of a run's logs, from a local folder or from object storage."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.redaction import masked_text
from attent_stream.base.remote import is_remote
from attent_stream.fit.log_folder import attempt_of
from attent_stream.report.errors import LogError

_ENDINGS = (".parquet", ".json")


def log_of(folder: str) -> str:
    """The folder of a run's logs: the one that is given, or the only one below it.

    Args:
        folder: Such a folder, a local one with checkpoints and logs, or a URL.

    Raises:
        LogError: There are the logs of several runs below it.
    """
    if is_remote(folder) or any(Path(folder).glob("*.parquet")):
        return folder
    below = sorted({str(file.parent) for file in Path(folder).glob("*/**/metrics-*.parquet")})
    if len(below) > 1:
        raise LogError(f"{folder} has the logs of several runs: give {' or '.join(below)}")
    return below[0] if below else folder


@contextmanager
def local_files(folder: str | Path) -> Iterator[Path]:
    """Yield the folder, or for a URL a temporary copy of its log files.

    Raises:
        LogError: The store cannot be read.
    """
    if not is_remote(str(folder)):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _download(str(folder), Path(scratch))
        yield Path(scratch)


Rows = dict[str, NDArray]


def read_rows(
    files: Iterable[Path], columns: Sequence[str], place: Callable[[Rows], NDArray]
) -> tuple[Rows, NDArray[np.int64]]:
    """Read Parquet files, without the rows that a later attempt of the run has written again.

    Args:
        files: At least one.
        columns: Names of the columns to read.
        place: Where in the run each of some rows belongs, such as its batch.

    Returns:
        Columns by name, each of shape (n,), in the order of attempts and of files' names; and the
        number of each row's file in that order.

    Raises:
        ArrowException, OSError: A file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    listed = sorted(files, key=lambda one: (attempt_of(one.name), one.name))
    tables = [pq.read_table(one, columns=list(columns)) for one in listed]
    table = pa.concat_tables(tables)
    rows = {name: table[name].to_numpy(zero_copy_only=False) for name in columns}
    file = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    attempts = np.array([attempt_of(one.name) for one in listed])[file]
    taken = of_last_attempts(place(rows), attempts)
    return {name: column[taken] for name, column in rows.items()}, file[taken]


def of_last_attempts(places: NDArray, attempts: NDArray) -> NDArray[np.bool_]:
    """Which rows no later attempt has written again.

    Args:
        places: Where in the run each row belongs, shape (n,).
        attempts: The attempt that wrote it, shape (n,).
    """
    taken = np.ones(len(places), bool)
    for attempt in np.unique(attempts)[1:]:
        first = places[attempts == attempt].min()
        taken &= (attempts >= attempt) | (places < first)
    return taken


def _download(url: str, into: Path) -> None:
    from composer.utils import maybe_create_object_store_from_uri, parse_uri

    try:
        store = maybe_create_object_store_from_uri(url)
        prefix = parse_uri(url)[2].rstrip("/") + "/"
        for key in store.list_objects(prefix):
            name = PurePosixPath(key).name
            if key.removeprefix(prefix) == name and name.endswith(_ENDINGS):
                store.download_object(key, str(into / name))
    except Exception as error:  # every store has its own
        reason = " ".join(str(error).split())
        raise LogError(masked_text(f"{url} cannot be read: {reason}")) from error
