"""Fetch a shard's files from its store into the cache, complete and checked, in bounded time.

Streaming's downloaders do the download. This module adds what Streaming 0.13 lacks:

- A file appears in the cache only with the size and hash of the index. Some downloaders leave a
  partial file, which the next try takes for the whole.
- ``download_timeout`` bounds the time of a file. Streaming's S3 applies it to each packet, and its
  GCS and Azure ignore it.
- A failed download or decompression is tried again, ``download_retry`` times in all.
"""

import copy
import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from streaming import Stream
from streaming.base.format import FileInfo, Reader
from streaming.base.hashing import get_hash
from streaming.base.storage.download import S3Downloader

from attent_stream.base.errors import (
    CacheFolderError,
    CorruptError,
    DiskFullError,
    MissingError,
    StoreError,
)
from attent_stream.base.open_files import is_out_of_files, open_files_error
from attent_stream.base.redaction import masked_text
from attent_stream.store.parts import Part
from attent_stream.store.s3 import FiniteS3Downloader
from attent_stream.store.store_errors import is_of_a_store, kind_of, store_error

# Permanent errors of the cache folder; a missing folder is made again.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def pause(attempt: int, longest: float) -> float:
    """Return Streaming's wait (s) after failed try ``attempt``: 1, 2, 4, ..., up to ``longest``."""
    return min(2.0**attempt, longest)


def patience(stream: Stream, files: int = 1) -> float:
    """Return the most seconds that fetching a shard of so many files takes, to bound all waits."""
    tries, timeout = stream.download_retry, stream.download_timeout
    pauses = sum(pause(attempt, timeout) + 0.5 for attempt in range(tries - 1))
    return tries * (files * timeout + 1) + pauses


def fetch_shard(stream: Stream, shard: Reader, where: str) -> int:
    """Fetch and unpack all files of a shard.

    Args:
        stream: The shard's stream.
        shard: The shard.
        where: Name of the shard for error messages.

    Returns:
        Number of bytes by which the cache has grown.

    Raises:
        StoreError: All ``download_retry`` tries failed; its subclass gives the cause.
    """
    before = _bytes_here(stream, shard)

    def once() -> None:
        if downloads_itself(stream):
            for raw, zipped in shard.file_pairs:
                if not any(_path(stream, info).is_file() for info in (raw, zipped) if info):
                    info = zipped or raw
                    check = partial(check_file, info=info, algorithm=stream.validate_hash)
                    fetch_file(stream, info.basename, check)
        _unpack(stream, shard)

    retried(once, stream, where)
    return _bytes_here(stream, shard) - before


def retried(once: Callable[[], None], stream: Stream, where: str) -> None:
    """Call ``once`` until it succeeds, at most ``download_retry`` times.

    Raises:
        StoreError: The last try failed, or another try cannot help.
        OpenFilesError: The last try failed because this process is out of file descriptors.
        Exception: An error that is neither a store's nor an OSError, such as a MemoryError or a bug
            in a downloader; it is raised unchanged and at once.
    """
    begin = time.monotonic()
    tries = stream.download_retry if downloads_itself(stream) else 1
    for attempt in range(tries):
        try:
            return once()
        except Exception as error:
            if not isinstance(error, (OSError, RecursionError)) and not is_of_a_store(error):
                raise
            reconnect(stream)
            kind = _kind(error, stream)
            if attempt + 1 == tries or _is_final(error, kind) or stream.remote is None:
                if is_out_of_files(error):
                    raise open_files_error(where) from None
                times = "1 try" if attempt == 0 else f"{attempt + 1} tries"
                what = f"{times} in {time.monotonic() - begin:.0f} s"
                # Hide the cause from the traceback: its text may contain credentials.
                raise store_error(error, where, what, kind) from None
            time.sleep(pause(attempt, stream.download_timeout) + random.Random().random() / 2)
    raise AssertionError("download_retry is at least 1")


def reconnect(stream: Stream) -> None:
    """Make the stream's next download open a new connection and read the credentials again.

    A thread that is downloading keeps the old downloader and its connection.
    """
    fresh = copy.copy(stream._downloader)
    fresh.clean_up()
    stream._downloader = fresh


def fetch_file(stream: Stream, name: str, check: Callable[[Path], None]) -> None:
    """Download one file, check it, and move it into the cache, in one try.

    Args:
        stream: The file's stream.
        name: Name of the file.
        check: Called with the path of the downloaded file; raises if the file is wrong.

    Raises:
        TimeoutError: The download took longer than ``download_timeout``.
        MissingError: The stream has no remote.
        Exception: The downloader or ``check`` failed.
    """
    path = Path(stream.local, stream.split, name)
    if stream.remote is None:
        raise MissingError(f"{name} is not in the folder, and there is no remote to fetch it from")
    part = Part(path)
    remote = os.path.join(stream.remote, stream.split, name)

    def download() -> None:
        stream._downloader.download(remote, str(part.path), stream.download_timeout)

    try:
        download_in_time(download, part, stream.download_timeout, path.name)
        check(part.path)
        os.replace(part.path, path)
    finally:
        part.discard()


def download_in_time(download: Callable[[], None], part: Part, seconds: float, name: str) -> None:
    """Call ``download``, which writes ``part``, and abandon it after so many seconds.

    Raises:
        TimeoutError: It took too long.
        Exception: ``download`` failed.
    """
    if not _finishes(download, seconds, part.discard):
        limit = f"download_timeout, {seconds:g} s"
        raise TimeoutError(f"only {part.arrived} bytes of {name} arrived within {limit}")


def protect(stream: Stream) -> None:
    """Replace Streaming's S3 downloader, which may try without end."""
    if type(stream._downloader) is S3Downloader:
        stream._downloader = FiniteS3Downloader()


def check_file(path: Path, info: FileInfo, algorithm: str | None) -> None:
    """Compare a file's size and hash with its entry in the index.

    Args:
        path: The file.
        info: Its entry in the index.
        algorithm: Hash to compare (``validate_hash``), or None for the fastest in the index.

    Raises:
        CorruptError: They differ.
    """
    size = path.stat().st_size
    if size != info.bytes:
        raise CorruptError(
            f"expected {info.bytes} bytes in {info.basename} by the index, got {size}"
        )
    algorithm = algorithm or next(iter(sorted(info.hashes, key=_slowness)), None)
    if algorithm and get_hash(algorithm, path.read_bytes()) != info.hashes[algorithm]:
        raise CorruptError(f"the {algorithm} of {info.basename} differs from the index")


def check_stream(stream: Stream, which: str) -> None:
    """Raise ValueError if ``download_retry`` or ``download_timeout`` is out of range."""
    if stream.download_retry < 1:
        raise ValueError(
            f"download_retry must be at least 1 (tries), got {stream.download_retry} for {which}"
        )
    if not stream.download_timeout > 0:
        raise ValueError(
            f"download_timeout must be positive (s), got {stream.download_timeout} for {which}"
        )


def check_hashes(stream: Stream, which: str, hashes: Iterable[Mapping[str, str]]) -> None:
    """Raise ValueError if the index has no ``validate_hash`` for a file.

    Args:
        stream: The stream.
        which: Its name for messages.
        hashes: Those of each stored file, by algorithm.
    """
    if not stream.validate_hash:
        return
    for known in hashes:
        if stream.validate_hash not in known:
            raise ValueError(
                f"validate_hash must be a hash in the index of {which} "
                f"({', '.join(sorted(known)) or 'it has none'}), got {stream.validate_hash!r}"
            )


def describe(
    stream: Stream, number: int, shard: Reader, shard_id: int, first_sample: int, rank: int
) -> str:
    """Name a shard for error messages: its stream, files, samples and this rank."""
    source = masked_text(os.path.join(stream.remote or stream.local, stream.split).rstrip("/"))
    names = ", ".join((zipped or raw).basename for raw, zipped in shard.file_pairs)
    samples = f"samples {first_sample} to {first_sample + shard.samples - 1}"
    return f"stream {number} ({source}), shard {shard_id} ({names}, {samples}), rank {rank}"


def is_whole(stream: Stream, shard: Reader) -> bool:
    """Whether every raw file of a shard is in the cache with the size of the index."""
    return all(_size(_path(stream, raw)) == raw.bytes for raw, _ in shard.file_pairs)


def is_torn(stream: Stream, shard: Reader) -> bool:
    """Whether a file of a shard is in the cache with a size that differs from the index."""
    files = [info for pair in shard.file_pairs for info in pair if info]
    return any(_size(_path(stream, info)) not in (None, info.bytes) for info in files)


def _unpack(stream: Stream, shard: Reader) -> None:
    pairs = [pair for pair in shard.file_pairs if pair[1] and not _path(stream, pair[0]).is_file()]
    try:
        stream.prepare_shard(shard)
    except Exception as error:
        ours = isinstance(error, (MemoryError, ImportError))  # the file is not to blame
        remote = stream.remote not in (None, stream.local)
        for raw, zipped in pairs:
            Path(f"{_path(stream, raw)}.tmp").unlink(missing_ok=True)
            if remote and not ours and not _is_final(error, _kind(error, stream)):
                _path(stream, zipped).unlink(missing_ok=True)
        if pairs and not ours and not isinstance(error, OSError):
            raise CorruptError(
                f"{pairs[0][1].basename} does not decompress: {type(error).__name__}: {error}"
            ) from error
        raise


def _kind(error: BaseException, stream: Stream) -> type[StoreError]:
    return kind_of(error, stream.local, stream.remote)


def _is_final(error: BaseException, kind: type[StoreError]) -> bool:
    """Whether the local disk would refuse another try too."""
    return kind is DiskFullError or (
        kind is CacheFolderError and getattr(error, "errno", None) in _REFUSED
    )


def _finishes(work: Callable[[], None], seconds: float, discard: Callable[[], None]) -> bool:
    """Run ``work``; if it is late, return False and call ``discard`` when it has ended."""
    failure: list[BaseException] = []
    late = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failure.append(error)
        finally:
            if late.is_set():
                discard()

    thread = threading.Thread(target=run, name="attent-download", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        late.set()
        return False
    if failure:
        raise failure[0]
    return True


def downloads_itself(stream: Stream) -> bool:
    """Whether a stream has Streaming's own download methods, which this module replaces."""
    own = ("_download_file", "_prepare_shard_part", "prepare_shard")
    return all(getattr(type(stream), name) is getattr(Stream, name) for name in own)


def _path(stream: Stream, info: FileInfo) -> Path:
    return Path(stream.local, stream.split, info.basename)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _bytes_here(stream: Stream, shard: Reader) -> int:
    files = [info for pair in shard.file_pairs for info in pair if info]
    return sum(info.bytes for info in files if _path(stream, info).exists())


def _slowness(algorithm: str) -> tuple[bool, str]:
    """Sort fast hashes first: xxHash runs at memory speed."""
    return not algorithm.startswith("xx"), algorithm
