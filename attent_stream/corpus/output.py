"""Write a corpus to a local folder in one rename, or to an object store with the manifest last."""

import os
import re
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from attent_stream.corpus.errors import CorpusError, require
from attent_stream.corpus.manifest import MANIFEST, Manifest

INDEX = "index.json"
UPLOAD_THREADS = 8
CORPUS_FILE = re.compile(
    rf"({MANIFEST}|tokenizer/[^/]+|(.*/)?{INDEX}|(.*/)?shard\.\d+\.mds(\.\w+)?)"
)


class LocalOutput:
    """A local folder, written under a temporary name beside it and then renamed."""

    def __init__(self, out: str, overwrite: bool) -> None:
        self.out = Path(os.path.abspath(os.path.expanduser(out)))
        self.replaces = self.out.is_dir() and any(self.out.iterdir())
        require(
            not self.out.exists() or self.out.is_dir(),
            f"{out} is a file; give a folder to write the corpus to",
        )
        if self.replaces:
            names = (
                p.relative_to(self.out).as_posix() for p in self.out.rglob("*") if not p.is_dir()
            )
            _check_replaceable(out, names, overwrite)
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = self._sibling("partial")
            self.folder.mkdir()
        except OSError as error:
            raise CorpusError(f"cannot write to {out}: {error.strerror}") from error

    def _sibling(self, word: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{word}-{os.getpid()}-{secrets.token_hex(3)}")

    def add(self, path: str) -> None:
        """Accept a complete shard, which is in the folder already."""

    def publish(self, manifest: Manifest) -> None:
        """Rename the folder to its final name."""
        manifest.save(self.folder)
        if not self.replaces:
            self.folder.rename(self.out)
            return
        old = self._sibling("old")
        self.out.rename(old)
        self.folder.rename(self.out)
        shutil.rmtree(old)

    def discard(self) -> None:
        """Remove unpublished files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class RemoteOutput:
    """An object store: complete shards are uploaded first, indices and the manifest last.

    MDSWriter's own upload is not used: it sends index.json while shards are still in flight, and
    also after an exception.
    """

    def __init__(self, out: str, overwrite: bool) -> None:
        from streaming.base.storage.upload import UPLOADERS, CloudUploader

        scheme = urlparse(out).scheme
        good = ", ".join(f"{name}://" for name in UPLOADERS if name and ":" not in name)
        require(scheme in UPLOADERS, f"cannot write to {scheme}://; give a folder or one of {good}")
        self.out = out.rstrip("/")
        self.folder = Path(tempfile.mkdtemp(prefix="attent-corpus-"))
        self.uploads: deque[tuple[str, Future]] = deque()
        self.sent: list[str] = []
        self.pool = ThreadPoolExecutor(UPLOAD_THREADS)
        try:
            self.store = CloudUploader.get((str(self.folder), self.out), retry=3)
            self._clear(overwrite)
        except CorpusError:
            self.close()
            raise
        except Exception as error:  # Every store has its own exceptions.
            self.close()
            raise CorpusError(f"cannot write to {out}: {error}") from error

    def _clear(self, overwrite: bool) -> None:
        try:
            keys = self.store.list_objects() or []
        except NotImplementedError:
            require(
                overwrite,
                f"this store cannot list {self.out}, which may hold files; continue with "
                "--overwrite",
            )
            return
        prefix = urlparse(self.out).path.lstrip("/")
        names = [key[len(prefix) :].lstrip("/") for key in keys]
        if not names:
            return
        _check_replaceable(self.out, names, overwrite)
        require(
            urlparse(self.out).scheme == "s3",
            f"{self.out} is not empty, and only s3:// corpora are replaced; remove it with your "
            "store's tool",
        )
        self._delete(
            sorted(names, key=lambda name: (name != MANIFEST, not name.endswith(INDEX), name))
        )

    def _delete(self, names: list[str]) -> None:
        url = urlparse(self.out)
        for name in names:
            self.store.s3.delete_object(
                Bucket=url.netloc, Key=f"{url.path.lstrip('/')}/{name}".lstrip("/")
            )

    def add(self, path: str) -> None:
        """Upload a complete shard by its path in `folder`; wait if many are being uploaded."""
        self.uploads.append((path, self.pool.submit(self.store.upload_file, path)))
        self.sent.append(path)
        if len(self.uploads) > 2 * UPLOAD_THREADS:
            self._wait_for_first()

    def _wait_for_first(self) -> None:
        path, future = self.uploads.popleft()
        try:
            future.result()
        except Exception as error:
            raise CorpusError(f"could not upload {path} to {self.out}: {error}") from error

    def _flush(self) -> None:
        while self.uploads:
            self._wait_for_first()

    def publish(self, manifest: Manifest) -> None:
        """Upload the other files: shards and tokenizer first, then indices, then the manifest."""
        self._flush()
        names = sorted(
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        )
        for last in (False, True):
            for name in names:
                if name.endswith(INDEX) == last:
                    self.add(name)
            self._flush()
        manifest.save(self.folder)
        self.add(MANIFEST)
        self._flush()

    def discard(self) -> None:
        """Remove unpublished files from s3://; other stores keep them without a manifest."""
        for _, future in self.uploads:
            future.cancel()
        self.pool.shutdown(wait=True)
        if urlparse(self.out).scheme == "s3":
            self._delete(self.sent)

    def close(self) -> None:
        """Free threads and the local copy."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _check_replaceable(out: str, names: Any, overwrite: bool) -> None:
    require(overwrite, f"{out} is not empty; --overwrite replaces the corpus there")
    other = next((name for name in names if not CORPUS_FILE.fullmatch(name)), None)
    require(
        other is None,
        f"{out} holds more than a corpus ({other}), so it is not replaced; choose another folder",
    )


@contextmanager
def open_output(out: str, overwrite: bool = False) -> Iterator[LocalOutput | RemoteOutput]:
    """Open a destination; unless the block calls `publish`, it leaves no corpus behind.

    Args:
        out: A folder, or a URL that Streaming can upload to.
        overwrite: Replace an existing corpus, but nothing else.

    Raises:
        CorpusError: The destination is not empty or cannot be written.
    """
    output = RemoteOutput(out, overwrite) if "://" in out else LocalOutput(out, overwrite)
    try:
        yield output
    except BaseException:
        output.discard()
        raise
    finally:
        output.close()


class ShardWriter:
    """Write the MDS shards of a part and pass each complete one to the output."""

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        path: str,
        columns: dict[str, str],
        **settings: Any,
    ) -> None:
        from streaming import MDSWriter

        self.output, self.path, self.samples, self.added = output, path, 0, 0
        self.mds = MDSWriter(columns=columns, out=str(output.folder / path), **settings)

    def write(self, sample: dict[str, Any]) -> None:
        """Write one sample."""
        self.mds.write(sample)
        self.samples += 1
        self._add_new()

    def _add_new(self) -> None:
        for shard in self.mds.shards[self.added :]:
            self.added += 1
            self.output.add(f"{self.path}/{(shard['zip_data'] or shard['raw_data'])['basename']}")

    def finish(self) -> None:
        """Write the last shard and index.json; call it only after a sample and without errors."""
        self.mds.finish()
        self._add_new()
