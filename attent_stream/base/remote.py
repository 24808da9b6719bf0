"""Where a path points."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL of object storage, as Streaming tells it."""
    return "://" in path or path.startswith("dbfs:")
