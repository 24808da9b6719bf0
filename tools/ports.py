"""Ports for what is started here."""

import random
import socket

# Below what systems give to outgoing connections: one of those could take it meanwhile
_RANGE = range(20_000, 30_000)


def free_port() -> int:
    """A port that nobody listens at, on any interface of this machine.

    Raises:
        OSError: None was found.
    """
    for port in random.SystemRandom().sample(_RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(
        f"expected a free port from {_RANGE.start} to {_RANGE.stop - 1}, found none in 100 tries"
    )
