"""Translate the exceptions of stores into this package's errors, with credentials masked.

Each store's library has its own exceptions. They are told apart by common features, such as an HTTP
status or errno, so that no library needs to be imported.
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
# Libraries of Streaming's downloaders, and their HTTP libraries
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
# Exceptions about credentials without an HTTP status, of botocore, google.auth and azure.identity
_CREDENTIALS = re.compile(
    r"Credential|Unauthorized|Authentication|RefreshError|TokenRetrieval|ExpiredToken|InvalidAccessKey"
)
_LONGEST = 300

ADVICE = {
    UnreachableError: (
        "check that the store can be reached, or raise download_retry (each try waits twice as "
        "long as the last) or download_timeout"
    ),
    DeniedError: (
        "check the credentials (they may have expired) and that they allow reading this object"
    ),
    MissingError: "check remote and split, and that the upload of the corpus was completed",
    CorruptError: "write this shard again, and look for what damages it in transit",
    DiskFullError: "free some space, set cache_limit, or use a local folder on a larger disk",
    CacheFolderError: (
        "check that this user may write the local folder, that its disk is not read-only, and that "
        "nothing removes it"
    ),
}


def store_error(
    error: BaseException, where: str, what: str = "", kind: type[StoreError] | None = None
) -> StoreError:
    """Translate an exception of a store's library or the local disk.

    Args:
        error: The exception.
        where: The stream, shard and rank, for the message.
        what: The tries so far ("3 tries in 7 s"), for the message.
        kind: The class from ``kind_of``, if the caller knows the cache folder.
    """
    kind = kind or kind_of(error)
    said = f"{what}: " if what else ""
    return kind(_one_line(f"{where}: {_WORDS[kind]} ({said}{_text(error)}); {ADVICE[kind]}"))


_WORDS = {
    UnreachableError: "the store did not deliver it",
    DeniedError: "the store refused access",
    MissingError: "the store does not have it",
    CorruptError: "the data is corrupt",
    DiskFullError: "the local disk cannot take it",
    CacheFolderError: "the local folder cannot be used",
}


def kind_of(error: BaseException, local: str = "", remote: str | None = None) -> type[StoreError]:
    """Classify an exception as one of this package's errors.

    Args:
        error: The exception.
        local: The cache folder, or "" if it is not known.
        remote: The stream's remote, which may be a folder.
    """
    if type(error) in _WORDS:
        return type(error)
    status = http_status(error)
    if isinstance(error, OSError) and error.errno in _DISK:
        return DiskFullError
    if local and _is_in_cache(error, local, remote):
        return CacheFolderError
    # S3 answers a HEAD with an expired token with 400. Streaming recurses if all are refused.
    denied = status in (400, 401, 403) or isinstance(error, RecursionError)
    if denied or _is_about_credentials(error):
        return DeniedError
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return MissingError
    return UnreachableError


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an exception of botocore, google or azure, or None."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status_code", None)
        status = status or getattr(error, "code", None)  # google.api_core
    return status if isinstance(status, int) else None


def is_of_a_store(error: BaseException) -> bool:
    """Whether an exception comes from a store or the network, not from wrong settings."""
    known = type(error).__module__.split(".")[0] in _LIBRARIES or http_status(error) is not None
    full = isinstance(error, OSError) and error.errno in _DISK
    network = (ConnectionError, TimeoutError, FileNotFoundError, EOFError, StoreError)
    return known or full or isinstance(error, network) or _is_about_credentials(error)


def _is_about_credentials(error: BaseException) -> bool:
    """Whether an exception or its context is about credentials; Streaming's GCS hides it there."""
    return any(_CREDENTIALS.search(type(one).__name__) for one in (error, error.__context__))


def _is_in_cache(error: BaseException, local: str, remote: str | None) -> bool:
    """Whether an exception is about a path in the cache or a folder that contains the cache."""
    name = getattr(error, "filename", None)
    if not isinstance(error, OSError) or not isinstance(name, (str, os.PathLike)):
        return False
    name, local = os.path.abspath(name), os.path.abspath(local)
    if remote and "://" not in remote:  # the remote folder may be inside the cache
        remote = os.path.abspath(remote)
        if _contains(local, remote) and _contains(remote, name):
            return False
    return _contains(local, name) or _contains(name, local)


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath((folder, path)) == folder


def _text(error: BaseException) -> str:
    last = getattr(error, "last_exception", None)  # boto3's, after its retries
    if isinstance(last, BaseException):
        return _text(last)
    text = _one_line(str(error)) or type(error).__name__
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return text if isinstance(error, StoreError) else f"{type(error).__name__}: {text}"


def _one_line(text: str) -> str:
    return masked_text(" ".join(text.split()))
