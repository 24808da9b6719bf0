"""A folder of a run's logs, local or on object storage."""

import io
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

from attent_stream.base.remote import is_remote

PATIENCE = 60.0  # seconds that a checkpoint waits, once, for logs that are being uploaded
_MOST = 256  # files that wait to be uploaded

log = logging.getLogger(__name__)


def file_name(kind: str, attempt: int, first: str) -> str:
    """Name of a log's file. Names of one attempt of a run sort as what they hold.

    Args:
        kind: What it holds.
        attempt: When the attempt of the run began, in milliseconds.
        first: Where in the run it begins.
    """
    return f"{kind}{attempt:014}-{first}.parquet"


def attempt_of(name: str) -> int:
    """The attempt in a ``file_name``; 0 for logs of before."""
    found = re.match(r"[a-z]+-([0-9]{14})-", name)
    return int(found[1]) if found else 0


class LogFolder:
    """Writes files whole. A log that cannot be written is a warning, and no reason to end a run.

    Files for object storage are uploaded by a thread, one after the other. It does not keep a
    process from ending, and a store that is down is waited for once.

    Args:
        path: A local folder, or a URL that Streaming can upload to.
    """

    def __init__(self, path: str) -> None:
        self._path, self._remote = path, is_remote(path)
        self._waiting: Queue[tuple[str, bytes]] = Queue(_MOST)
        self._thread: Thread | None = None
        self._late = False

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one of that name."""
        if not self._remote:
            self._write_locally(name, data)
            return
        try:
            self._waiting.put_nowait((name, data))
        except Full:
            log.warning("The choice log could not write %s: %d files wait already", name, _MOST)
            return
        if self._thread is None:
            self._thread = Thread(target=self._upload_all, name="attent-logs", daemon=True)
            self._thread.start()

    def write_table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write columns as a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table(dict(columns)), buffer, compression="zstd")
        self.write(name, buffer.getvalue())

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON."""
        self.write(name, json.dumps(value, indent=1, default=str).encode())

    def finish(self) -> None:
        """Wait until all is written, but no longer than ``PATIENCE``, and not after that was too
        short.
        """
        end = time.monotonic() + (0.0 if self._late else PATIENCE)
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._waiting.all_tasks_done.wait(left)
            missing = self._waiting.unfinished_tasks
        if missing and not self._late:
            log.warning("The choice log: %d files are not uploaded yet", missing)
        self._late = bool(missing)

    def _write_locally(self, name: str, data: bytes) -> None:
        path = Path(self._path) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f"{name}.half")
            half.write_bytes(data)
            os.replace(half, path)
        except OSError as error:
            log.warning("The choice log could not write %s: %s", name, error)

    def _upload_all(self) -> None:
        from streaming.base.storage.upload import CloudUploader

        uploader: Any = None
        with tempfile.TemporaryDirectory() as scratch:
            while True:
                name, data = self._waiting.get()
                try:
                    if uploader is None:
                        uploader = CloudUploader.get((scratch, self._path), retry=3)
                    path = Path(scratch) / name
                    path.write_bytes(data)
                    uploader.upload_file(name)
                    path.unlink(missing_ok=True)
                except Exception as error:  # every store has its own
                    log.warning("The choice log could not write %s: %s", name, error)
                finally:
                    self._waiting.task_done()
