"""Ranks that read an epoch from S3, by stock Streaming and taught, forked from this process (which
has imported everything).

A node is a mount namespace with a /dev/shm and a temporary folder of its own, as another machine
would have.
"""

import ctypes
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from ports import free_port
from streaming import StreamingDataLoader, StreamingDataset
from streaming_memory import streaming_cleaned_up
from taught import make_loader, run_epochs
from torch import distributed as dist

DATA = {"batch_size": 4, "shuffle": True, "num_canonical_nodes": 2, "remote": "s3://bucket/plain"}
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE


def enter_node(temporary: Path) -> bool:
    """Give this process (of one thread) a /dev/shm and a temporary folder of its own; False where
    that is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = NEW_MOUNTS if os.getuid() == 0 else NEW_MOUNTS | NEW_USER
    if libc.unshare(flags) or libc.mount(b"none", b"/", None, PRIVATE, None):
        return False
    tempfile.tempdir = str(temporary)
    return libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, None) == 0


def nodes_are_possible() -> bool:
    """Whether ``enter_node`` is allowed here."""

    def attempt():
        sys.exit(0 if enter_node(Path(tempfile.gettempdir())) else 1)

    process = multiprocessing.get_context("fork").Process(target=attempt)
    process.start()
    process.join()
    return process.exitcode == 0


def read(rank: int, world: int, per_node: int, port: int, folder: Path, own_node: bool) -> None:
    """One rank: read an epoch twice, and write what was read as ``rankN.json``. Requests carry
    ``stock-nodeN`` or ``taught-nodeN`` as the name of the application, by which a server can tell
    them apart.
    """
    node = rank // per_node
    if own_node:
        temporary = tempfile.mkdtemp(prefix="node")  # short: sockets are made in it
        assert enter_node(Path(temporary))
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank % per_node)}
    os.environ |= {
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    seen = {}
    with streaming_cleaned_up():
        for kind in ("stock", "taught"):
            os.environ["AWS_SDK_UA_APP_ID"] = f"{kind}-node{node}"
            data = DATA | {"local": str(folder / f"{kind}-node{node}")}
            if kind == "stock":
                # One worker: with more, workers of Streaming 0.13 share a connection, and may mix
                # answers up.
                loader = StreamingDataLoader(StreamingDataset(**data), batch_size=4, num_workers=1)
                seen[kind] = [i for batch in loader for i in batch["id"].tolist()]
            else:
                loader = make_loader(data | {"window": 4, "gap": 1}, {"num_workers": 2}, {})
                seen[kind] = run_epochs(loader)
            dist.barrier()
            del loader
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()
    if own_node:
        shutil.rmtree(temporary)


def run_nodes(folder: Path, nodes: int, per_node: int) -> list[dict]:
    """What each rank read."""
    world, port = nodes * per_node, free_port()
    assert nodes == 1 or per_node == 1  # a namespace is of one process and its children
    context = multiprocessing.get_context("fork")
    arguments = [(rank, world, per_node, port, folder, nodes > 1) for rank in range(world)]
    ranks = [context.Process(target=read, args=each) for each in arguments]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(timeout=120)
        assert [rank.exitcode for rank in ranks] == [0] * world
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world)]
