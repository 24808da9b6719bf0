"""What people meet with stores and caches.

Data sets replaced in place, public buckets, listings of the cache, many data sets, few descriptors.
"""

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import difficulty, write_ids
from ports import free_port
from stores import CREDENTIALS, SAMPLES, taught_run
from streaming import MDSWriter
from streaming.base.constant import SHM_TO_CLEAN
from streaming.base.dataset import _ShardState
from taught import make_loader
from torch import distributed as dist

from attent_stream import TeachingDataset
from attent_stream.base.errors import (
    CollateError,
    CorruptError,
    DeniedError,
    MissingError,
    OpenFilesError,
    StaleIndexError,
)
from attent_stream.store import index, parts, shared_memory, stale

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from zygote import Zygote

STALE = (
    r"the index in \S*/cache is of older data than the store has now.*; "
    r"remove the folder \S*/cache "
)


def write(folder: Path, count: int, first: int = 0, width: int = 4, **settings) -> Path:
    """Write samples of one size, so that shards of other samples have the same sizes."""
    shutil.rmtree(folder, ignore_errors=True)
    columns = {"id": "int", "difficulty": "float32", "more": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=512, **settings) as writer:
        for sample in range(first, first + count):
            writer.write(
                {"id": sample, "difficulty": np.float32(difficulty(sample)), "more": bytes(width)}
            )
    return folder


def opened(tmp_path, remote, **settings) -> TeachingDataset:
    defaults = {
        "local": str(tmp_path / "cache"),
        "download_retry": 2,
        "download_timeout": 20,
        "batch_size": 4,
    }
    return TeachingDataset(remote=str(remote), **defaults | settings)


def read(dataset) -> list[int]:
    return [int(dataset[i]["id"]) for i in range(len(dataset))]


def filled(tmp_path, remote, **settings) -> list[int]:
    """Fill the cache, and say with what."""
    ids = read(opened(tmp_path, remote, **settings))
    gc.collect()
    return ids


@pytest.fixture(scope="module")
def forks():
    made = Zygote(
        ["streaming", "taught", "test_field_store"],
        [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])],
    )
    yield made
    made.close()


@pytest.fixture
def corpus(buckets, request):
    """A folder in the bucket, of this test's own, and its address."""
    name = request.node.name.split("[")[0]
    yield buckets / "bucket" / name, f"s3://bucket/{name}"
    shutil.rmtree(buckets / "bucket" / name, ignore_errors=True)


# ---- 1. a data set that was replaced at the same address


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("s3", {}),
        ("folder", {}),
        ("folder", {"hashes": ["sha1"]}),
        ("folder", {"compression": "zstd"}),
    ],
)
def test_a_replaced_data_set_of_the_same_sizes_is_refused_at_the_start(
    tmp_path, corpus, proxy, place, settings
):
    folder, remote = corpus
    remote = remote if place == "s3" else folder
    write(folder, 60, **settings)
    opened(tmp_path, remote).prepare_shard(0)  # the rest would come from the new one
    gc.collect()
    write(folder, 90, first=1000, **settings)
    with pytest.raises(StaleIndexError, match=r"index.json of stream 0 \(.*\), rank 0: " + STALE):
        opened(tmp_path, remote)
    shutil.rmtree(tmp_path / "cache")
    assert read(opened(tmp_path, remote)) == list(range(1000, 1090))


def test_one_of_several_streams_was_replaced(tmp_path, corpus, proxy):
    from streaming import Stream

    folder, remote = corpus

    def both():
        places = [
            {"remote": f"{remote}/{name}", "local": str(tmp_path / name / "cache")}
            for name in ("a", "b")
        ]
        return TeachingDataset(streams=[Stream(**place) for place in places], batch_size=4)

    for name in ("a", "b"):
        write(folder / name, 30)
    assert len(both()) == 60
    gc.collect()
    write(folder / "b", 31)
    with pytest.raises(StaleIndexError, match=r"index.json of stream 1 .*/b/cache is of older"):
        both()


@pytest.mark.parametrize(
    ("how", "workers"), [("other sizes", 0), ("fewer shards", 0), ("other hashes", 1)]
)
def test_a_shard_that_does_not_fit_a_stale_index_is_told_as_that(
    tmp_path, corpus, proxy, how, workers
):
    """The data set was replaced when the run had the index, or could not compare it."""
    folder, remote = corpus
    hashes = {"hashes": ["xxh64"]} if how == "other hashes" else {}
    write(folder, 60, **hashes)
    data = {
        "local": str(tmp_path / "cache"),
        "remote": remote,
        "batch_size": 4,
        "window": 4,
        "gap": 1,
        "num_canonical_nodes": 1,
    }
    loader = make_loader(data | {"download_retry": 2}, {"num_workers": workers}, {})
    new = {
        "other sizes": {"count": 60, "width": 9},
        "fewer shards": {"count": 20},
        "other hashes": {"count": 60, "first": 500},
    }
    write(folder, **new[how], **hashes)
    with pytest.raises(
        StaleIndexError, match=r"stream 0 \(s3://bucket/\S*\), shard \d+ .*" + STALE
    ):
        for _ in loader:
            loader.teach(lambda batch: batch["difficulty"])


@pytest.mark.parametrize("fault", ["flip", "short"])
def test_a_damaged_shard_is_no_stale_index(tmp_path, proxy, fault):
    data = opened(tmp_path, "s3://bucket/hashed")
    proxy.faults({"kind": fault, "match": "shard.00001", "methods": ["HEAD", "GET"]})
    with pytest.raises(CorruptError, match="write this shard anew") as caught:
        read(data)
    assert not isinstance(caught.value, StaleIndexError)
    proxy.faults(
        {"kind": "status", "status": 404, "match": "shard.00001", "methods": ["HEAD", "GET"]}
    )
    with pytest.raises(MissingError):
        read(data)


def test_comparing_takes_one_request_a_stream(tmp_path, corpus, proxy, monkeypatch):
    folder, remote = corpus
    write(folder, 60)
    expected = filled(tmp_path, remote)

    def requests():
        asked = [(method, key.split("/")[-1]) for _, method, key, _ in proxy.requests()]
        proxy.forget()
        return asked

    assert requests().count(("GET", "index.json")) == 1  # fetched, and not compared with itself
    assert filled(tmp_path, remote) == expected
    assert requests() == [("GET", "index.json")]
    path = folder / "index.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()), indent=3)
    )  # the same, written and tagged in another way
    assert filled(tmp_path, remote) == expected
    assert requests() == [("GET", "index.json")]
    for name, value in {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    index.fetch_indices({"remote": remote, "local": str(tmp_path / "cache")})
    assert requests() == []  # another rank of the node does it


def test_no_comparison_without_another_place(tmp_path, monkeypatch):
    folder = str(write(tmp_path / "data", 60))
    monkeypatch.setattr(stale, "is_stale", None)
    for places in ({"local": folder}, {"local": folder, "remote": folder}):
        data = TeachingDataset(**places, batch_size=4)
        assert read(data) == list(range(60))
        del data
        gc.collect()


@pytest.mark.parametrize("fault", ["gone", "forbidden", "missing", "no JSON"])
def test_a_full_cache_starts_without_the_store(tmp_path, corpus, proxy, monkeypatch, caplog, fault):
    folder, remote = corpus
    write(folder, 60)
    expected = filled(tmp_path, remote)
    if fault == "gone":
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://me:PLANTED@127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    elif fault == "no JSON":
        (folder / "index.json").write_text("<html>sign in</html>")
    else:
        proxy.faults(
            {
                "kind": "status",
                "status": {"forbidden": 403, "missing": 404}[fault],
                "methods": ["GET", "HEAD"],
            }
        )
    with caplog.at_level(logging.WARNING):
        assert filled(tmp_path, remote) == expected
    assert caplog.text.count("could not be compared with the store's, and is used as it is") == 1
    assert "PLANTED" not in caplog.text and CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in caplog.text
    assert sorted(os.listdir(tmp_path / "cache")) == sorted(os.listdir(folder))


# ---- 2. public buckets


def without_credentials(tmp_path, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("status", "workers"), [(None, 0), (403, 1), (400, 0)], ids=["none", "refused", "expired"]
)
def test_a_public_bucket_needs_no_credentials(
    tmp_path, buckets, proxy, monkeypatch, status, workers
):
    """Those that there are, of somebody else or expired, are refused."""
    expected = taught_run(buckets / "bucket" / "plain", None, workers=0)
    if status is None:
        without_credentials(tmp_path, monkeypatch)
    proxy.faults(
        {"kind": "status", "status": status or 500, "signed": True, "methods": ["GET", "HEAD"]}
    )
    assert (
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=workers, download_retry=1)
        == expected
    )
    assert set(proxy.gets().values()) == {1}
    proxy.forget()
    gc.collect()
    assert read(opened(tmp_path, "s3://bucket/plain")) == list(
        range(SAMPLES)
    )  # the comparison of the index too
    assert len(proxy.requests()) == (1 if status is None else 2)


@pytest.mark.parametrize("named", [True, False])
def test_without_a_named_folder_too(tmp_path, proxy, monkeypatch, named):
    """Streaming fetches the index itself where the cache is in its own folder."""
    without_credentials(tmp_path, monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    local = {"local": str(tmp_path / "cache")} if named else {}
    data = TeachingDataset(remote="s3://bucket/plain", batch_size=4, **local)
    assert read(data) == list(range(SAMPLES))


def test_the_first_refusal_is_told(tmp_path, proxy, monkeypatch):
    """Without a request more than one unsigned for one signed."""
    rules = [
        {"kind": "status", "methods": ["GET", "HEAD"], "status": status, "signed": status == 400}
        for status in (400, 403)
    ]
    proxy.faults(*rules)
    with pytest.raises(DeniedError, match=r"2 tries .*\(400\)") as caught:
        opened(tmp_path, "s3://bucket/plain")
    assert [key for *_, key, _ in proxy.requests()].count("bucket/plain/index.json") == 4
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    without_credentials(tmp_path, monkeypatch)
    proxy.forget()
    with pytest.raises(DeniedError, match="NoCredentialsError"):
        opened(tmp_path, "s3://bucket/plain")
    assert [key for *_, key, _ in proxy.requests()] == ["bucket/plain/index.json"] * 2


def test_what_is_missing_in_a_public_bucket_is_missing(tmp_path, proxy):
    """With credentials that may not list the bucket S3 answers 403, without any 404."""
    proxy.faults({"kind": "status", "status": 403, "signed": True, "methods": ["GET", "HEAD"]})
    with pytest.raises(MissingError, match=r"index.json of stream 0 \(s3://bucket/none\)"):
        opened(tmp_path, "s3://bucket/none")


# ---- 3. nothing is left in the cache


@pytest.mark.parametrize("kind", ["plain", "zipped"])
def test_the_cache_holds_what_the_store_does(tmp_path, buckets, kind):
    """As Streaming's own tests of eviction look at it."""
    source = buckets / "bucket" / kind
    data = opened(tmp_path, source, keep_zip=True)
    assert [int(sample["id"]) for sample in data] == list(range(SAMPLES))
    here = {
        name
        for name in os.listdir(tmp_path / "cache")
        if kind == "plain" or not name.endswith(".mds")
    }
    assert here == set(os.listdir(source))


def test_parts_of_one_file_do_not_meet(tmp_path):
    """One process has finished, and removes its folder, before the other begins to write."""
    one, other = (parts.Part(tmp_path / "new" / "shard.mds") for _ in range(2))
    one.path.write_bytes(b"12345")
    os.replace(one.path, tmp_path / "new" / "shard.mds")
    one.discard()
    other.path.write_bytes(b"67")
    (other.path.parent / "shard.mds.tmp").write_bytes(b"8")
    assert other.arrived == 3
    os.replace(other.path, tmp_path / "new" / "shard.mds")
    other.discard()
    assert os.listdir(tmp_path / "new") == ["shard.mds"]


def test_parts_of_a_killed_run_are_removed_wherever_they_are(tmp_path, buckets):
    cache = tmp_path / "cache"
    old = [parts.Part(folder / "shard.00000.mds") for folder in (cache, cache / "merged")]
    for part in old:
        part.path.write_bytes(b"half")
    (cache / ".attent-parts").mkdir()  # as an older version had it
    new = parts.Part(cache / "shard.00001.mds")
    new.path.write_bytes(b"half")
    os.utime(new.path, (time.time() + 60,) * 2)  # somebody else's, under way
    (cache / ".theirs").mkdir()
    opened(tmp_path, buckets / "bucket" / "plain")
    hidden = sorted(path.name for path in cache.glob(".*"))
    assert hidden == sorted([new.path.parent.name, ".theirs"])
    assert not list((cache / "merged").iterdir())


# ---- 4. data sets that come and go


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
        open_files.append(len(os.listdir("/proc/self/fd")))
    left = sorted(used & in_memory())
    last = LIVING["last"] = TeachingDataset(local=folder, batch_size=4)  # until Python ends
    Path(report).write_text(json.dumps([open_files, left, sorted(names_of(last))]))


def test_data_sets_that_are_dropped_leave_no_descriptor(forks, tmp_path):
    folder, report, said = write_ids(tmp_path / "data", 32), tmp_path / "report", tmp_path / "said"
    env = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    assert (
        forks.start("test_field_store:make_many", folder, str(report), said=said, env=env).wait(300)
        == 0
    ), said.read_text()
    open_files, left, last = json.loads(report.read_text())
    assert max(open_files) - min(open_files) <= 1, str(
        open_files
    )  # one is of Python's own, once there are workers
    assert left == []
    assert not set(last) & forks.shared_memory()
    assert not [
        line
        for line in said.read_text().splitlines()
        if "Traceback" in line or "leaked" in line or "ignored" in line
    ]


def make_on_a_rank(rank: int, port: int, folder: str, report: str) -> None:
    """The same on two ranks, which drop their data sets at different times."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
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
    dist.destroy_process_group()


def test_two_ranks_make_and_drop_data_sets(forks, tmp_path):
    folder, port, before = write_ids(tmp_path / "data", 64), free_port(), forks.shared_memory()
    env = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    given = [
        ("test_field_store:make_on_a_rank", rank, port, folder, str(tmp_path / f"report{rank}"))
        for rank in (0, 1)
    ]
    ranks = [forks.start(*one, said=tmp_path / f"said{one[1]}", env=env) for one in given]
    for rank in ranks:
        assert rank.wait(120) == 0, rank.said
    for rank in (0, 1):
        open_files, read = json.loads((tmp_path / f"report{rank}").read_text())
        few = [open_files[number] for number in range(rank + 1, 8, 2)]  # without one that is kept
        assert max(few) - min(few) <= 1 and max(open_files) <= max(few) + 16, open_files
        assert read
    assert forks.shared_memory() <= before


def test_a_forked_process_closes_nothing_of_its_parents(tmp_path):
    data = TeachingDataset(local=write_ids(tmp_path / "data", 32), batch_size=4)
    names = names_of(data) & in_memory()
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            shared_memory._close(data._memory, data._locals_shm, [], True, os.getppid())
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(names) == 6 and names <= in_memory()
    assert len(list(data)) == 32
    del data
    gc.collect()
    assert not names & in_memory()


def test_a_rank_that_drops_its_data_set_leaves_it_to_the_others(tmp_path, monkeypatch):
    """On a node of several ranks names stay until Python ends, descriptors do not."""
    ended = []
    monkeypatch.setattr("streaming.base.shared.memory.atexit.register", ended.append)
    data = TeachingDataset(local=write_ids(tmp_path / "data", 32), batch_size=4)
    names, before = names_of(data) & in_memory(), len(os.listdir("/proc/self/fd"))
    folders = bytes(data._locals_shm.buf[:4])
    shared_memory._close(data._memory, data._locals_shm, [], False, os.getpid())
    assert len(names) == 6 and names <= in_memory()
    assert len(os.listdir("/proc/self/fd")) == before - 12
    with open(f"/dev/shm/{data.shared_prefix:06}_locals", "rb") as file:
        assert file.read(4) == bytes(4) != folders  # so that the folders can be used by another
    for cleanup in ended:
        cleanup()
    assert not names & in_memory()


def test_memory_that_is_still_looked_at_is_closed_later(tmp_path):
    folder = write_ids(tmp_path / "data", 32)
    data = TeachingDataset(local=folder, batch_size=4)
    states, before = (
        np.frombuffer(data._shard_states.shm.buf, np.uint8),
        len(os.listdir("/proc/self/fd")),
    )
    names = names_of(data)
    del data
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 10
    assert not names & in_memory() and states[0] == _ShardState.LOCAL
    del states
    data = TeachingDataset(local=folder, batch_size=4)
    del data
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 12


def test_a_refused_data_set_leaves_no_descriptor(tmp_path):
    """Streaming looks at all memory a hundred times, in case a folder in use becomes free."""
    source = write_ids(tmp_path / "data", 32)
    data = TeachingDataset(remote=source, local=str(tmp_path / "cache"), batch_size=4)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="Reused local directory"):
        TeachingDataset(remote=source, local=str(tmp_path / "cache"), batch_size=4)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list(data)) == 32


# ---- 5. out of file descriptors


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
        return batch | {f"more{number}": torch.zeros(4) for number in range(self.tensors)}


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


CASES = {
    "the trainer cannot receive a tensor": (60, [1], 2, True),
    "without a teacher": (60, [1], 2, False),
    "a worker cannot send a batch": (60, [40], 2, True),
    "workers cannot be started": (22, [1], 2, True),
    "a collate function opens files": (60, [0, 80], 0, True),
    "one in a worker does": (60, [0, 80], 2, True),
    "the data set cannot be made": (5, [0], 0, True),
}


@pytest.mark.processes
@pytest.mark.parametrize("case", CASES)
def test_too_few_descriptors_are_named(forks, tmp_path, case):
    few, name, text = trained(forks, tmp_path, *CASES[case])
    assert name == OpenFilesError.__name__, text
    said = f'("Too many open files"; the limit is {few} for each process): run \'ulimit -n '
    assert said in text


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_stay_as_they_are(forks, tmp_path, workers):
    assert trained(forks, tmp_path, 400, [0], workers, True)[1:] == ["nothing", ""]
    name, text = trained(forks, tmp_path, 400, [0, 0, "the disk is bad"], workers, True)[1:]
    assert name == CollateError.__name__ and "the disk is bad" in text


def trained(forks, tmp_path, few, collate, workers, taught):
    report, folder = tmp_path / "report", tmp_path / "data"
    folder.exists() or write_ids(folder, 256)
    given = (
        "test_field_store:train_with_few",
        str(folder),
        few,
        collate,
        workers,
        taught,
        str(report),
    )
    process = forks.start(*given, said=tmp_path / "said", env={"TMPDIR": str(tmp_path)})
    assert process.wait(120) == 0, process.said
    return json.loads(report.read_text())
