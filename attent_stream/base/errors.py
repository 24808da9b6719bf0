"""The errors that a user can see; each message says what was expected and what to do."""

from attent_stream.base.redaction import masked_text

_LONGEST = 200  # characters quoted from another package's message


class AttentError(RuntimeError):
    """Base class of this package's runtime errors; secrets in the message are masked."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


class TeacherError(AttentError):
    """A taught epoch has no teacher, or its teacher did not choose the next window in time."""


class StoreError(AttentError):
    """A shard or index could not be read; the message names the stream, the rank and the cause."""


class UnreachableError(StoreError):
    """The store did not answer, had an error of its own, or exceeded ``download_timeout``."""


class DeniedError(StoreError):
    """The store refused the credentials, or there are none."""


class MissingError(StoreError):
    """The store has no such object."""


class CorruptError(StoreError):
    """A file differs from the index in size or hash, or it does not decompress."""


class StaleIndexError(CorruptError):
    """The cached index is older than the store's: the data set was replaced in place."""


class OpenFilesError(AttentError):
    """No file descriptor is left; the message gives the limit and says how to raise it."""


class DiskFullError(StoreError):
    """The cache folder cannot take a shard: disk full, over quota, or the file is too large."""


class CacheFolderError(StoreError):
    """The cache folder cannot be used: no permission, a read-only disk, or it was removed."""


class CacheLimitError(StoreError):
    """``cache_limit`` leaves no room for the shards that are being read."""


class CollateError(AttentError):
    """A collate function raised; the message names its samples, their shards and the rank."""


class ScoreError(ValueError):
    """A batch or a model's outputs do not allow per-sample scores; the message says what to do."""


class FidelityError(ValueError):
    """A fidelity is invalid, or this model cannot be scored at it."""


def in_words(error: BaseException) -> str:
    """Describe an error in one line: its type and message, or a ``ScoreError``'s message alone."""
    text = " ".join(str(error).split())
    if isinstance(error, ScoreError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text[:_LONGEST]}" if text else kind
