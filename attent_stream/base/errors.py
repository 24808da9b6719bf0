"""The errors a user can meet; each message is one sentence that says what was expected and what to
do.
"""

from attent_stream.base.redaction import masked_text

_LONGEST = 200  # characters of what another package says


class AttentError(RuntimeError):
    """Base of every error this package raises for something that went wrong while running; secrets
    in it are masked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


class TeacherError(AttentError):
    """A taught epoch has no teacher, or its teacher did not choose the next window in time."""


class StoreError(AttentError):
    """A shard or index could not be had; the message says of which stream, on which rank, why, and
    what to do.
    """


class UnreachableError(StoreError):
    """The store did not answer, answered with an error of its own, or took longer than
    ``download_timeout``.
    """


class DeniedError(StoreError):
    """The store refused the credentials, or there are none."""


class MissingError(StoreError):
    """The store has no such object."""


class CorruptError(StoreError):
    """What arrived is not what the index says: another size, another hash, or it does not
    decompress.
    """


class StaleIndexError(CorruptError):
    """The cached index is of older data than the store has: the data set was replaced in place."""


class OpenFilesError(AttentError):
    """No file descriptor is left; the message says how many are allowed, and how to have more."""


class DiskFullError(StoreError):
    """The cache folder cannot take a shard: no space, over quota, or over the largest file
    allowed.
    """


class CacheFolderError(StoreError):
    """The cache folder cannot be used: no permission, a read-only disk, or it was removed under the
    run.
    """


class CacheLimitError(StoreError):
    """``cache_limit`` leaves no room for the shards that are being read."""


class CollateError(AttentError):
    """A collate function raised; the message names its samples, their shards and the rank."""


class ScoreError(ValueError):
    """A batch or a model's outputs from which no per-sample score can be had; the message says what
    to do.
    """


class FidelityError(ValueError):
    """A fidelity that is none, or that this model cannot be scored at; the message says what was
    expected.
    """


def in_words(error: BaseException) -> str:
    """An error on one line: its kind and what it says; of a ``ScoreError``, which speaks for
    itself, the latter alone.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ScoreError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text[:_LONGEST]}" if text else kind
