"""A folder of a run's logs, local or on object storage."""

import io
import logging
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds that a checkpoint waits for logs that are being uploaded

log = logging.getLogger(__name__)


class LogFolder:
    """Writes files whole. A log that cannot be written is a warning, and no reason to end a run.

    Files for object storage are uploaded by a thread, one after the other.

    Args:
        path: A local folder, or a URL that Streaming can upload to.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "attent-logs") if "://" in path else None
        self._uploads: list[Future] = []

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one of that name."""
        if self._thread is None:
            self._write(name, data)
            return
        self._uploads = [one for one in self._uploads if not one.done()]
        self._uploads.append(self._thread.submit(self._write, name, data))

    def write_table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write columns as a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table(dict(columns)), buffer, compression="zstd")
        self.write(name, buffer.getvalue())

    def finish(self) -> None:
        """Wait until all is written, but no longer than ``PATIENCE``."""
        left = wait(self._uploads, PATIENCE).not_done
        if left:
            log.warning("The choice log: %d files are not uploaded yet", len(left))

    def _write(self, name: str, data: bytes) -> None:
        try:
            if self._thread is not None:
                self._upload(name, data)
                return
            path = Path(self._path) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f"{name}.half")
            half.write_bytes(data)
            os.replace(half, path)
        except Exception as error:  # every store has its own
            log.warning("The choice log could not write %s: %s", name, error)

    def _upload(self, name: str, data: bytes) -> None:
        from streaming.base.storage.upload import CloudUploader

        with tempfile.TemporaryDirectory() as scratch:
            uploader = CloudUploader.get((scratch, self._path), retry=3)  # takes an empty folder
            (Path(scratch) / name).write_bytes(data)
            uploader.upload_file(name)
