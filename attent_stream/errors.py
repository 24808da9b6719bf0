"""The errors a user can meet; each message is one sentence that says what was expected and what to do."""


class AttentError(RuntimeError):
    """Base of every error this package raises for something that went wrong while running."""


class TeacherError(AttentError):
    """A taught epoch has no teacher, or its teacher did not choose the next window in time."""
