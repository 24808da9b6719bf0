"""Processes that make many data sets, or train with few file descriptors."""

import gc
import json
import multiprocessing
import os
import resource
import threading
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import torch
from streaming.base.constant import SHM_TO_CLEAN
from taught import make_loader
from torch import distributed as dist

from attent_stream import TeachingDataset
from attent_stream.store import memory_names

LIVING: dict[str, TeachingDataset] = {}


def names_of(data) -> set[str]:
    return {f"{data.shared_prefix:06}_{name}" for name in SHM_TO_CLEAN}


def in_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def make_many(folder: str, report: str) -> None:
    """Make, iterate and drop data sets; report the open descriptors and the names that are left."""
    gc.freeze()  # what was imported is not looked through again and again
    open_files, used = [], set()
    for number in range(40):
        data = {"local": folder, "batch_size": 4, "window": 2, "gap": 0, "num_canonical_nodes": 1}
        workers = 2 * (number in (7, 15, 39))
        loader = make_loader(data, {"num_workers": workers, "persistent_workers": number == 15}, {})
        stock = TeachingDataset(local=folder, batch_size=4)  # which sees the other's memory
        if number % 5 == 0:
            loader.dataset.load_state_dict(loader.dataset.state_dict(0, True))
            loader.dataset.load_state_dict(loader.dataset.state_dict(0, True))
        for _ in range(1 + (number == 15)):
            for _ in loader:
                loader.teach(lambda batch: batch["difficulty"])
        if number % 3 == 0:
            next(iter(loader))  # and left there
        used |= names_of(loader.dataset) | names_of(stock)
        if (
            not workers
        ):  # torch cannot end persistent workers in bounded time where the loader is in a cycle
            loader.dataset.cycle = loader
        del loader, stock, _
        gc.collect()
        # A worker that torch has ended has a descriptor until it is waited for.
        [child.join(60) for child in multiprocessing.active_children()]
        # So have the queues of workers until the threads that fed them have closed them.
        feeding = [one for one in threading.enumerate() if one.name == "QueueFeederThread"]
        [thread.join(60) for thread in feeding]
        open_files.append(len(os.listdir("/proc/self/fd")))
    left = sorted(used & in_memory())
    last = LIVING["last"] = TeachingDataset(local=folder, batch_size=4)  # until Python ends
    Path(report).write_text(json.dumps([open_files, left, sorted(names_of(last))]))


def join(rank: int, port: int) -> None:
    """Join a job of two ranks on this node."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))


def make_on_a_rank(rank: int, port: int, folder: str, report: str) -> None:
    """The same on two ranks, which drop their data sets at different times."""
    join(rank, port)
    resource_tracker.ensure_running()  # at its first use, it opens a descriptor
    gc.freeze()
    open_files, kept, read = [], [], []
    for number in range(8):
        data = {"local": folder, "batch_size": 4, "window": 2, "gap": 0, "num_canonical_nodes": 1}
        loader = make_loader(data, {}, {})
        kept = (
            [loader] if number % 2 == rank else []
        )  # dropped after this rank has made the next one, or before
        for batch in loader:
            loader.teach(lambda batch: batch["difficulty"])
            read.append(batch["id"].tolist())
        del loader, batch
        gc.collect()
        open_files.append(len(os.listdir("/proc/self/fd")))
    del kept
    gc.collect()
    Path(report).write_text(json.dumps([open_files, read]))
    dist.barrier()  # a rank that leaves closes the other's connection, which is counted above
    dist.destroy_process_group()


def make_while_another_ends(rank: int, port: int, folder: str, report: str) -> None:
    """Make a data set on each of two ranks; a name becomes free after the first rank's search."""
    join(rank, port)
    find, number, others = memory_names._first_free, 0, None
    if rank == 0:
        while others is None:
            try:
                others = SharedMemory(f"{number:06}_locals", True, 8)
            except FileExistsError:
                number += 1
        others.buf[:4] = (4).to_bytes(4, "little")  # the memory of a data set without folders

    def search(*args):
        found = find(*args)
        if not rank:
            others.close()
            others.unlink()
        return found

    memory_names._first_free = search
    data = TeachingDataset(local=folder, batch_size=4, num_canonical_nodes=1)
    ids = [int(sample["id"]) for sample in data]
    Path(report).write_text(json.dumps([number, data.shared_prefix, ids]))
    dist.barrier()
    dist.destroy_process_group()


def make_in_a_folder_in_use(rank: int, port: int, folder: str, report: str) -> None:
    """Be refused by the first rank's search, on each of two ranks, and then make a data set."""
    join(rank, port)
    search = memory_names._first_free

    def refused(*args):
        assert rank == 0  # the other one does not search
        raise ValueError("Reused local directory")

    memory_names._first_free = refused
    said = ""
    try:
        TeachingDataset(local=folder, batch_size=4)
    except ValueError as error:
        said = str(error)
    memory_names._first_free = search
    data = TeachingDataset(local=folder, batch_size=4)
    Path(report).write_text(json.dumps([said, data.shared_prefix]))
    dist.barrier()
    dist.destroy_process_group()


class Collated:
    """A collate function that needs descriptors, for tensors or for files that it leaves open."""

    def __init__(self, tensors: int, files: int = 0, error: str = "") -> None:
        self.tensors, self.files, self.error, self.kept = tensors, files, error, []

    def __call__(self, samples: list) -> dict:
        self.kept += [os.open(os.devnull, os.O_RDONLY) for _ in range(self.files)]
        if self.error:
            raise OSError(5, self.error)
        batch = {
            name: torch.tensor([float(sample[name]) for sample in samples])
            for name in ("id", "difficulty")
        }
        # Each that is not contiguous is sent with a descriptor of its own
        return batch | {f"more{number}": torch.zeros(4, 2).t() for number in range(self.tensors)}


def train_with_few(
    folder: str, few: int, collate: list, workers: int, taught: bool, report: str
) -> None:
    """Keep all batches, with so few descriptors more than there are; say what is raised."""
    data = {"local": folder, "batch_size": 4, "window": 4, "gap": 1, "num_canonical_nodes": 1}
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few += len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    kept, loader = [], None
    try:
        loader = make_loader(data, {"num_workers": workers, "collate_fn": Collated(*collate)}, {})
        if not taught:
            loader.attach(None)
        for batch in loader:
            if taught:
                loader.teach(lambda batch: batch["difficulty"])
            kept.append(batch)
        said = ["nothing", ""]
    except Exception as error:
        said = [type(error).__name__, str(error)]
    del kept
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Path(report).write_text(json.dumps([few, *said]))
    os._exit(0)


def make_at_once(folder: str) -> None:
    """Make and keep data sets, as other jobs do at the same time."""
    kept = [TeachingDataset(local=folder, batch_size=4) for _ in range(12)]
    assert len({data.shared_prefix for data in kept}) == len(kept)
