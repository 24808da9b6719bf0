"""What a store's exception means, in this package's own errors and without anybody's credentials.

Every store's library has its own exceptions; what they share is looked for (an HTTP status, an
errno), so that none of these libraries need be installed or imported.
"""

import errno
import os
import re
from collections.abc import Mapping

from attent_stream.base.errors import (
    CacheFolderError,
    CorruptError,
    DeniedError,
    DiskFullError,
    MissingError,
    StoreError,
    UnreachableError,
)
from attent_stream.base.redaction import masked_text

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Those that Streaming's downloaders use, and what these use to speak HTTP.
_LIBRARIES = {
    "boto3",
    "botocore",
    "s3transfer",
    "google",
    "azure",
    "huggingface_hub",
    "alipcs_py",
    "paramiko",
    "databricks",
    "oci",
}
_LIBRARIES |= {"requests", "urllib3", "http", "httpx", "httpcore", "aiohttp"}
# Exceptions without an HTTP status that are about credentials: those of botocore, google.auth and
# azure.identity.
_CREDENTIALS = re.compile(
    r"Credential|Unauthorized|Authentication|RefreshError|TokenRetrieval|ExpiredToken|InvalidAccessKey"
)
_LONGEST = 300

ADVICE = {
    UnreachableError: (
        "check that the store can be reached, or raise download_retry (each try waits twice "
        "as long as the one before) or download_timeout"
    ),
    DeniedError: (
        "check the credentials (they may have expired) and that they allow reading this object"
    ),
    MissingError: "check remote and split, and that the upload of the corpus was completed",
    CorruptError: "write this shard anew, and look for what damages it on the way",
    DiskFullError: "free some space, set cache_limit, or give a local folder on a larger disk",
    CacheFolderError: (
        "check that this user may write the local folder, that its disk is not read-only, and that "
        "nothing removes it"
    ),
}


def store_error(
    error: BaseException, where: str, what: str = "", kind: type[StoreError] | None = None
) -> StoreError:
    """The error of this package for one of a store's library or of the local disk.

    Args:
        error: What was raised.
        where: The stream, shard and rank.
        what: What was done about it so far ("3 tries in 7 s").
        kind: What ``kind_of`` says of it, where its place on the disk is known.
    """
    kind = kind or kind_of(error)
    said = f"{what}: " if what else ""
    return kind(_one_line(f"{where}: {_WORDS[kind]} ({said}{_text(error)}); {ADVICE[kind]}"))


_WORDS = {
    UnreachableError: "the store did not deliver it",
    DeniedError: "the store refused access",
    MissingError: "the store does not have it",
    CorruptError: "what arrived is not what was written",
    DiskFullError: "the local disk cannot take it",
    CacheFolderError: "the local folder cannot be used",
}


def kind_of(error: BaseException, local: str = "", remote: str | None = None) -> type[StoreError]:
    """Which of this package's errors an exception is.

    Args:
        error: What was raised.
        local: Folder of the cache; without it, no file is known to be in the cache.
        remote: Of the stream, which may be a folder too.
    """
    if type(error) in _WORDS:
        return type(error)
    status = http_status(error)
    if isinstance(error, OSError) and error.errno in _DISK:
        return DiskFullError
    if local and _is_in_cache(error, local, remote):
        return CacheFolderError
    # S3 answers 400 to an expired token, where it has no body to say so in.
    if (
        status in (400, 401, 403)
        or isinstance(error, RecursionError)
        or _is_about_credentials(error)
    ):
        return DeniedError
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return MissingError
    return UnreachableError


def http_status(error: BaseException) -> int | None:
    """The HTTP status in an exception of botocore, google or azure, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status_code", None)
        status = status or getattr(error, "code", None)  # google.api_core
    return status if isinstance(status, int) else None


def is_of_a_store(error: BaseException) -> bool:
    """Whether an exception comes from a store or the way to it, rather than from wrong settings."""
    known = type(error).__module__.split(".")[0] in _LIBRARIES or http_status(error) is not None
    full = isinstance(error, OSError) and error.errno in _DISK
    plain = isinstance(
        error, (ConnectionError, TimeoutError, FileNotFoundError, EOFError, StoreError)
    )
    return known or full or plain or _is_about_credentials(error)


def _is_about_credentials(error: BaseException) -> bool:
    """Streaming's GCS raises a ValueError in handling google.auth's error, so what was being
    handled counts too.
    """
    return any(_CREDENTIALS.search(type(one).__name__) for one in (error, error.__context__))


def _is_in_cache(error: BaseException, local: str, remote: str | None) -> bool:
    """Whether an exception is about a file or folder of the cache, or a folder that it is in."""
    name = getattr(error, "filename", None)
    if not isinstance(error, OSError) or not isinstance(name, (str, os.PathLike)):
        return False
    name, local = os.path.abspath(name), os.path.abspath(local)
    if remote and "://" not in remote:  # a folder, which may be in the cache's or be the same
        remote = os.path.abspath(remote)
        if _contains(local, remote) and _contains(remote, name):
            return False
    return _contains(local, name) or _contains(name, local)


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath((folder, path)) == folder


def _text(error: BaseException) -> str:
    last = getattr(error, "last_exception", None)  # what boto3 was retrying for
    if isinstance(last, BaseException):
        return _text(last)
    text = _one_line(str(error)) or type(error).__name__
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return text if isinstance(error, StoreError) else f"{type(error).__name__}: {text}"


def _one_line(text: str) -> str:
    return masked_text(" ".join(text.split()))
