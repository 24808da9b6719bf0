"""The one error type of the corpus tool."""


class CorpusError(ValueError):
    """A mistake in what the user asked for or gave; its text is one sentence that says what to change."""


def require(condition: bool, message: str) -> None:
    """Raise CorpusError(message) unless condition holds."""
    if not condition:
        raise CorpusError(message)
