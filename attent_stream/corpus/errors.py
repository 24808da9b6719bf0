"""The error of the corpus tool."""

from attent_stream.base.redaction import masked_text


class CorpusError(ValueError):
    """A mistake in the settings or the data; the message masks secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


def require(condition: bool, message: str) -> None:
    """Raise CorpusError unless the condition holds."""
    if not condition:
        raise CorpusError(message)
