"""The files of a run's logs, from a local folder or from object storage."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from attent_stream.base.redaction import masked_text
from attent_stream.report.errors import LogError

_ENDINGS = (".parquet", ".json")


@contextmanager
def local_files(folder: str | Path) -> Iterator[Path]:
    """Yield the folder, or for a URL a temporary copy of its log files.

    Raises:
        LogError: The store cannot be read.
    """
    if "://" not in str(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _download(str(folder), Path(scratch))
        yield Path(scratch)


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
