"""Memory that ranks share: mapped by all, named by none."""

import errno
import os

import pytest

from attent_stream.base import node_memory as module
from attent_stream.base.errors import AttentError
from attent_stream.base.node_memory import mapped, node_file, node_memory, node_path


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Ranks that are all in this process: barriers are noted."""
    met = []
    monkeypatch.setattr(module, "meet", met.append)
    return met


def test_a_mapping_outlives_the_name():
    path = node_path(f"attent-test-{os.getpid()}")
    with node_file(path) as file:
        file.write(b"shared")
        file.flush()
        memory = mapped(path)
        assert os.stat(path).st_mode & 0o077 == 0
    assert memory[:] == b"shared" and not os.path.exists(path)
    with pytest.raises(TypeError):
        memory[0] = 1


def test_what_a_killed_run_left_is_replaced(tmp_path):
    path = tmp_path / "left"
    path.write_bytes(b"old and long")
    with node_file(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"new"
    assert not path.exists()


def test_all_see_what_the_leader_writes(monkeypatch, alone):
    """The other rank maps it while the leader waits."""
    arguments = {"name": f"attent-test-{os.getpid()}", "size": 100, "what": "x", "advice": "y"}
    others = []

    def meet(purpose):
        alone.append(purpose)
        if len(alone) == 1:
            others.append(node_memory(**arguments, leader=False))

    monkeypatch.setattr(module, "meet", meet)
    memory = node_memory(**arguments, leader=True)
    assert memory[:] == bytes(100)
    memory[7] = 9
    assert others[0][7] == 9 and set(alone) == {"the sharing of x"} and len(alone) == 4


def test_too_little_memory_is_named(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    name = f"attent-test-{os.getpid()}"
    said = r"rank 0 .* has no 100 bytes in /\S+ for the ledger \(No space left.*\): use less"
    with pytest.raises(AttentError, match=said):
        node_memory(name, 100, leader=True, what="the ledger", advice="use less")
    assert not os.path.exists(node_path(name))
