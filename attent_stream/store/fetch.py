"""A shard's files from its store into the cache: whole and checked, in bounded time, or an error
with a name.

Downloading is Streaming's own, of every store. What is added, because Streaming 0.13 lacks it: a
file appears in the cache only when it has the size and the hash of the index (some downloaders
leave a part behind where the next try takes it for the whole); ``download_timeout`` bounds the time
a file takes (Streaming's S3 applies it to the wait for each packet, its GCS and Azure not at all);
a download or decompression that failed is tried again, ``download_retry`` times in all.
"""

import copy
import errno
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
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

# For good, as opposed to a folder that can be made again
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def pause(attempt: int, longest: float) -> float:
    """Seconds to wait after failed try number ``attempt`` (from 0): Streaming's own 1, 2, 4, ...,
    at most ``longest``.
    """
    return min(2.0**attempt, longest)


def patience(stream: Stream, files: int = 1) -> float:
    """Seconds in which fetching a shard of so many files has succeeded or failed: a bound on every
    wait for it.
    """
    tries, timeout = stream.download_retry, stream.download_timeout
    return tries * (files * timeout + 1) + sum(
        pause(attempt, timeout) + 0.5 for attempt in range(tries - 1)
    )


def fetch_shard(stream: Stream, shard: Reader, where: str) -> int:
    """Have all files of a shard in the cache, ready to read.

    Args:
        stream: Where it is from and goes to.
        shard: Which.
        where: How to name it in an error.

    Returns:
        By how many bytes the cache has grown.

    Raises:
        StoreError: Which of its kinds says what went wrong in all of ``download_retry`` tries.
    """
    before = _bytes_here(stream, shard)

    def once() -> None:
        if downloads_itself(stream):
            for raw, zipped in shard.file_pairs:
                if not _path(stream, raw).is_file() and not (
                    zipped and _path(stream, zipped).is_file()
                ):
                    info = zipped or raw
                    fetch_file(
                        stream,
                        info.basename,
                        lambda part, info=info: check_file(part, info, stream.validate_hash),
                    )
        _unpack(stream, shard)

    retried(once, stream, where)
    return _bytes_here(stream, shard) - before


def retried(once: Callable[[], None], stream: Stream, where: str) -> None:
    """Do something with a store ``download_retry`` times at most, until it succeeds.

    Raises:
        StoreError: The last failure; at once where trying again cannot help.
        OpenFilesError: The last failure, where this process is out of file descriptors.
        Exception: At once and as it is, what is neither of a store nor an OSError (no memory, no
            such module, a mistake in a downloader): it would be hidden behind a store's name.
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
                # The cause stays out of the traceback: its text has not been searched for
                # credentials.
                raise store_error(
                    error, where, f"{times} in {time.monotonic() - begin:.0f} s", kind
                ) from None
            time.sleep(pause(attempt, stream.download_timeout) + random.Random().random() / 2)
    raise AssertionError("download_retry is at least 1")


def reconnect(stream: Stream) -> None:
    """Let the next download of a stream make a new connection and read the credentials anew.

    Threads share a downloader, and one may be downloading: it goes on with the downloader that it
    has, and its connection.
    """
    fresh = copy.copy(stream._downloader)
    fresh.clean_up()
    stream._downloader = fresh


def fetch_file(stream: Stream, name: str, check: Callable[[Path], None]) -> None:
    """Download one file, check it, and put it in its place, once.

    Args:
        stream: Where from and where to.
        name: Of the file.
        check: Called with its path before it is in its place; what it raises is raised.

    Raises:
        TimeoutError: It took longer than ``download_timeout``.
        Exception: What the downloader raises.
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
    """Call ``download``, which fills ``part``; if it takes too long, give it up.

    Raises:
        TimeoutError: It took longer than so many seconds.
        Exception: What ``download`` raises.
    """
    if not _finishes(download, seconds, part.discard):
        limit = f"download_timeout, {seconds:g} s"
        raise TimeoutError(f"only {part.arrived} bytes of {name} arrived within {limit}")


def protect(stream: Stream) -> None:
    """Give a stream a downloader that ends, where Streaming's may not."""
    if type(stream._downloader) is S3Downloader:
        stream._downloader = FiniteS3Downloader()


def check_file(path: Path, info: FileInfo, algorithm: str | None) -> None:
    """Compare a file with what the index says of it.

    Args:
        path: The file.
        info: Its entry in the index.
        algorithm: Hash to compare (Streaming's ``validate_hash``), or None for any that the index
            has.

    Raises:
        CorruptError: They differ.
    """
    size = path.stat().st_size
    if size != info.bytes:
        raise CorruptError(f"{info.basename} has {size} bytes where the index says {info.bytes}")
    algorithm = algorithm or next(iter(sorted(info.hashes, key=_slowness)), None)
    if algorithm and get_hash(algorithm, path.read_bytes()) != info.hashes[algorithm]:
        raise CorruptError(f"the {algorithm} of {info.basename} is not the index's")


def check_stream(stream: Stream, which: str) -> None:
    """Refuse limits that no fetch could be made with.

    Raises:
        ValueError: ``download_retry`` or ``download_timeout`` is out of range.
    """
    if stream.download_retry < 1:
        raise ValueError(
            f"download_retry must be at least 1 (tries), got {stream.download_retry} for {which}"
        )
    if not stream.download_timeout > 0:
        raise ValueError(
            f"download_timeout must be positive (s), got {stream.download_timeout} for {which}"
        )


def check_hashes(stream: Stream, which: str, shards: Sequence[Reader]) -> None:
    """Refuse a ``validate_hash`` that a shard has no hash for.

    Raises:
        ValueError: It says which hashes there are.
    """
    for raw, zipped in (
        pair for shard in shards if stream.validate_hash for pair in shard.file_pairs
    ):
        known = (zipped or raw).hashes
        if stream.validate_hash not in known:
            raise ValueError(
                f"validate_hash must be one of the hashes in the index of {which}, which are "
                f"{', '.join(sorted(known)) or 'none'}, got {stream.validate_hash!r}"
            )


def describe(
    stream: Stream, number: int, shard: Reader, shard_id: int, first_sample: int, rank: int
) -> str:
    """A shard's place in words, for errors."""
    source = masked_text(os.path.join(stream.remote or stream.local, stream.split).rstrip("/"))
    names = ", ".join((zipped or raw).basename for raw, zipped in shard.file_pairs)
    samples = f"samples {first_sample} to {first_sample + shard.samples - 1}"
    return f"stream {number} ({source}), shard {shard_id} ({names}, {samples}), rank {rank}"


def is_whole(stream: Stream, shard: Reader) -> bool:
    """Whether every file of a shard that is in the cache has the index's size, and none is
    missing.
    """
    return all(_size(_path(stream, raw)) == raw.bytes for raw, _ in shard.file_pairs)


def is_torn(stream: Stream, shard: Reader) -> bool:
    """Whether a file of a shard is in the cache with another size than the index's."""
    files = [info for pair in shard.file_pairs for info in pair if info]
    return any(_size(_path(stream, info)) not in (None, info.bytes) for info in files)


def _unpack(stream: Stream, shard: Reader) -> None:
    zips = [
        (raw, zipped)
        for raw, zipped in shard.file_pairs
        if zipped and not _path(stream, raw).is_file()
    ]
    try:
        stream.prepare_shard(shard)
    except Exception as error:
        ours = isinstance(error, (MemoryError, ImportError))  # says nothing of the file
        for raw, zipped in zips:
            Path(f"{_path(stream, raw)}.tmp").unlink(missing_ok=True)
            if (
                stream.remote not in (None, stream.local)
                and not ours
                and not _is_final(error, _kind(error, stream))
            ):
                _path(stream, zipped).unlink(missing_ok=True)
        if zips and not ours and not isinstance(error, OSError):
            raise CorruptError(
                f"{zips[0][1].basename} does not decompress: {type(error).__name__}: {error}"
            ) from error
        raise


def _kind(error: BaseException, stream: Stream) -> type[StoreError]:
    return kind_of(error, stream.local, stream.remote)


def _is_final(error: BaseException, kind: type[StoreError]) -> bool:
    """Whether the local disk would refuse a next try too."""
    return kind is DiskFullError or (
        kind is CacheFolderError and getattr(error, "errno", None) in _REFUSED
    )


def _finishes(work: Callable[[], None], seconds: float, discard: Callable[[], None]) -> bool:
    """Run ``work``; False if it has not ended in time, and then ``discard`` is called when
    it has.
    """
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
    """Whether a stream gets its files in Streaming's own way, which is the one that is
    known here.
    """
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
    return sum(
        info.bytes
        for pair in shard.file_pairs
        for info in pair
        if info and _path(stream, info).exists()
    )


def _slowness(algorithm: str) -> tuple[bool, str]:
    """Fast hashes first: xxHash is read at memory speed, others are not."""
    return not algorithm.startswith("xx"), algorithm
