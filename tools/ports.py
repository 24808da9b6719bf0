"""Free ports for processes on this machine."""

import random
import socket

# Below the ports that systems give to outgoing connections.
_RANGE = range(20_000, 30_000)


def free_port() -> int:
    """Return a port without a listener on any interface.

    Raises:
        OSError: No free port was found.
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
