"""The one error type of the corpus tool."""

from attent_stream.base.redaction import masked_text


class CorpusError(ValueError):
    """A mistake in what the user asked for or gave; its text is one sentence that says what to
    change, secrets masked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


def require(condition: bool, message: str) -> None:
    """Raise CorpusError(message) unless condition holds."""
    if not condition:
        raise CorpusError(message)
