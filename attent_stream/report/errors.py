"""What can be wrong with a run's logs."""


class LogError(Exception):
    """A log that is not there, or cannot be read."""
