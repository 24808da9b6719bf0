"""Faults of a store, injected one by one: the same lessons, or an error with its cause and place.

The store is a folder behind the fault proxy, which speaks enough S3 for boto3. Oracle: the same run
from local disk.
"""

import shutil
import threading
from pathlib import Path

import pytest
from store_proxy import StoreProxy
from stores import RUN, SAMPLES, SLOW_DOWN, opened, read, taught_run, use_s3
from streaming import Stream
from streaming.base.dataset import _ShardState

from attent_stream import TeachingDataset
from attent_stream.base.errors import CorruptError, DeniedError, MissingError, UnreachableError
from attent_stream.store import fetch
from attent_stream.store.parts import PARTS


@pytest.fixture(scope="module")
def undisturbed(buckets):
    """The run from local disk, of each corpus (their shards differ)."""
    return {
        name: taught_run(buckets / "bucket" / name, None, workers=0)
        for name in ("plain", "hashed", "zipped")
    }


@pytest.fixture
def expected(undisturbed):
    return undisturbed["plain"]


SURVIVED = {
    "reset": [{"kind": "reset", "times": 4, "methods": ["GET", "HEAD"]}],
    "503 SlowDown": [SLOW_DOWN | {"times": 5, "methods": ["GET", "HEAD"]}],
    "500": [{"kind": "status", "status": 500, "times": 4}],
    "404 that passes": [{"kind": "status", "status": 404, "times": 2, "match": "shard"}],
    "latency": [{"kind": "delay", "seconds": 0.1}],
    "throttled": [{"kind": "throttle", "bytes": 200, "seconds": 0.02}],
    "cut": [{"kind": "cut", "times": 4, "match": "shard"}],
    "cut by a reset": [{"kind": "cut", "reset": True, "times": 4, "match": "shard"}],
    "short, as if whole": [
        {"kind": "short", "times": 2, "match": "shard", "methods": ["HEAD", "GET"]}
    ],
}


@pytest.mark.parametrize("fault", SURVIVED)
def test_what_is_retried_changes_no_lesson(tmp_path, proxy, expected, fault):
    proxy.faults(*SURVIVED[fault])
    workers = 2 if fault in ("cut", "throttled") else 0
    assert taught_run(tmp_path / "cache", "s3://bucket/plain", workers=workers) == expected


@pytest.mark.parametrize("corpus", ["hashed", "zipped"])
@pytest.mark.parametrize("kind", ["flip", "short"])
def test_a_damaged_body_is_fetched_again(tmp_path, proxy, undisturbed, corpus, kind):
    """The index has hashes, and they are looked at without being asked for."""
    proxy.faults({"kind": kind, "match": "shard", "times": 2})
    assert taught_run(tmp_path / "cache", f"s3://bucket/{corpus}", workers=0) == undisturbed[corpus]


ENDS = {
    "reset": ({"kind": "reset"}, UnreachableError, "did not deliver it"),
    "503": (SLOW_DOWN, UnreachableError, "503|SlowDown"),
    "stalled": (
        {"kind": "delay", "seconds": 30},
        UnreachableError,
        "only 0 bytes of shard.00002.mds arrived within download_timeout, 0.5 s",
    ),
    "throttled": (
        {"kind": "throttle", "bytes": 1, "seconds": 0.1},
        UnreachableError,
        "raise download_retry .* download_timeout",
    ),
    "cut": ({"kind": "cut"}, UnreachableError, "IncompleteReadError"),
    "missing": (
        {"kind": "status", "status": 404, "methods": ["HEAD"]},
        MissingError,
        "upload of the corpus",
    ),
    "forbidden": (
        {"kind": "status", "status": 403, "methods": ["HEAD"]},
        DeniedError,
        "check the credentials",
    ),
    "expired": (
        {"kind": "status", "status": 400, "methods": ["HEAD"]},
        DeniedError,
        "they may have expired",
    ),
    "flipped": ({"kind": "flip"}, CorruptError, "xxh64 of shard.00002.mds differs from the index"),
    "short": (
        {"kind": "short", "methods": ["HEAD", "GET"]},
        CorruptError,
        "bytes in shard.00002.mds by the index, got",
    ),
}


@pytest.mark.parametrize("fault", ENDS)
def test_what_does_not_pass_is_named(tmp_path, proxy, fault):
    """In bounded time, after download_retry tries, with stream, shard, samples and rank; nothing is
    left in the cache, and when the store is well again the same data set goes on.
    """
    rule, kind, text = ENDS[fault]
    data = opened(tmp_path, "s3://bucket/hashed")
    data.prepare_shard(0)
    data.prepare_shard(1)
    if fault in ("stalled", "throttled"):
        data.streams[0].download_timeout = 0.5
    proxy.faults(rule | {"match": "shard.00002"})
    with pytest.raises(kind, match=text) as caught:
        read(data)
    first, shard = int(data.sample_offset_per_shard[2]), data.shards[2]
    where = (
        f"stream 0 (s3://bucket/hashed), shard 2 (shard.00002.mds, samples {first} to "
        f"{first + len(shard) - 1}), rank 0"
    )
    assert str(caught.value).startswith(where)
    assert "(2 tries in " in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert not (tmp_path / "cache" / "shard.00002.mds").exists()
    assert data._shard_states[2] == _ShardState.REMOTE
    proxy.faults()
    data.streams[0].download_timeout = 20
    assert read(data) == list(range(SAMPLES))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_ends_with_the_name(tmp_path, proxy, workers):
    proxy.faults({"kind": "status", "status": 404, "match": "shard.00003", "methods": ["HEAD"]})
    with pytest.raises(MissingError, match=r"stream 0 \(s3://bucket/plain\), shard 3 "):
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=workers)


def test_gone_and_back(tmp_path, buckets, monkeypatch, expected):
    """The store's process is killed in the middle of a run, and is back before the tries are used
    up.
    """
    stores, fetched, failed, fetch_file = [StoreProxy(buckets)], [], [], fetch.fetch_file
    use_s3(monkeypatch, stores[0].url)
    monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)

    def killed_after_three_back_after_two(stream, name, check):
        try:
            fetch_file(stream, name, check)
        except Exception:
            failed.append(name)
            if len(failed) == 2:
                stores.append(StoreProxy(buckets, port=stores[0].port))
            raise
        fetched.append(name)
        if len(fetched) == 3:
            stores[0].stop()

    monkeypatch.setattr(fetch, "fetch_file", killed_after_three_back_after_two)
    try:
        assert taught_run(tmp_path / "cache", "s3://bucket/plain", workers=0) == expected
        assert len(stores) == 2 and len(failed) >= 2
    finally:
        stores[-1].stop()


def test_gone_for_good(tmp_path, buckets, monkeypatch):
    store = StoreProxy(buckets)
    use_s3(monkeypatch, store.url)
    monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)
    data = opened(tmp_path, "s3://bucket/plain")
    store.stop()
    with pytest.raises(
        UnreachableError, match="shard 0 .*Could not connect.*check that the store can be reached"
    ):
        read(data)


def test_pauses_and_patience():
    """Streaming's pauses, and a bound that is the sum of all that can be waited for."""

    class Fields:
        download_retry, download_timeout = 6, 60.0

    assert [fetch.pause(attempt, 20.0) for attempt in range(6)] == [1, 2, 4, 8, 16, 20]
    assert fetch.patience(Fields) == 6 * 61 + (1 + 2 + 4 + 8 + 16) + 5 * 0.5
    assert fetch.patience(Fields, files=2) - fetch.patience(Fields) == 6 * 60


class PartLeaver:
    """Downloads as Streaming's GCS does: straight into place, and what came before a reset stays
    there.
    """

    def __init__(self, source, failures: int) -> None:
        self.source, self.failures = source, failures

    def download(self, remote, local, timeout):

        if Path(local).exists():
            return
        content = (self.source / remote.split("/")[-1]).read_bytes()
        self.failures -= 1
        Path(local).parent.mkdir(exist_ok=True)
        Path(local).write_bytes(content[: len(content) // 2] if self.failures >= 0 else content)
        if self.failures >= 0:
            raise ConnectionResetError("connection reset by peer")

    def clean_up(self):
        pass


def test_a_part_is_never_taken_for_the_whole(tmp_path, buckets, proxy):
    data = opened(tmp_path, "s3://bucket/plain")
    data.streams[0]._downloader = PartLeaver(buckets / "bucket" / "plain", failures=1)
    assert read(data) == list(range(SAMPLES))
    assert not list((tmp_path / "cache").glob(f"{PARTS}*"))


def test_an_abandoned_download_leaves_nothing(tmp_path, buckets, proxy):
    """It took too long, was given up, and ended after all."""

    go, threads = threading.Event(), []

    class Late(PartLeaver):
        def download(self, remote, local, timeout):
            threads.append(threading.current_thread())
            assert go.wait(60)
            super().download(remote, local, timeout)

    data = opened(tmp_path, "s3://bucket/plain")
    data.streams[0].download_timeout = 0.2
    data.streams[0]._downloader = Late(buckets / "bucket" / "plain", failures=0)
    with pytest.raises(UnreachableError, match=r"2 tries .*only 0 bytes"):
        data[0]
    go.set()
    for thread in threads:
        thread.join(60)
    assert not list((tmp_path / "cache").glob(f"{PARTS}*"))
    assert not (tmp_path / "cache" / "shard.00000.mds").exists()


def test_a_lost_file_without_remote_is_named(tmp_path, buckets):
    shutil.copytree(buckets / "bucket" / "plain", tmp_path / "cache")
    data = TeachingDataset(local=str(tmp_path / "cache"), batch_size=4)
    (tmp_path / "cache" / "shard.00001.mds").unlink()
    with pytest.raises(MissingError, match=r"shard 1 .*there is no remote to fetch it from"):
        read(data)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"validate_hash": "md5"}, "a hash in the index of stream 0 .sha1, xxh64., got 'md5'"),
        ({"download_retry": 0}, "download_retry must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(tmp_path, buckets, settings, text):
    with pytest.raises(ValueError, match=text):
        TeachingDataset(local=str(buckets / "bucket" / "hashed"), batch_size=4, **settings)


def test_a_new_connection_leaves_the_others_theirs(tmp_path, buckets, proxy):
    """A reader and its fetcher share a downloader: one of them fails while the other is
    downloading.
    """

    begun, go, done, asked = threading.Event(), threading.Event(), threading.Event(), []

    class Connected(PartLeaver):
        client = None

        def download(self, remote, local, timeout):
            asked.append(remote[-9:])
            # Its connection is given up, and there is no new one yet
            if asked.count("00001.mds") == 2:
                go.set()
                assert done.wait(60)
            self.client = self.client or self.source
            if asked.count("00001.mds") == 1:
                raise ConnectionResetError("connection reset by peer")
            if len(asked) == 1:
                begun.set()
                assert go.wait(60)
            try:
                self.client.joinpath("index.json")  # AttributeError where it is None
            finally:
                done.set()
            super().download(remote, local, timeout)

        def clean_up(self):
            self.client = None

    data = opened(tmp_path, "s3://bucket/plain")
    data.streams[0]._downloader = Connected(buckets / "bucket" / "plain", failures=0)
    thread = threading.Thread(target=data.prepare_shard, args=(0,))
    thread.start()
    assert begun.wait(60)
    data.prepare_shard(1)
    thread.join(60)
    assert asked == ["00000.mds", "00001.mds", "00001.mds"]
    assert read(data) == list(range(SAMPLES))


def test_workers_have_connections_of_their_own(tmp_path, proxy):
    """A forked worker has the connection on which its parent read the index: two on it would read
    each other's answers (as they do in Streaming 0.13).
    """
    taught_run(tmp_path / "cache", "s3://bucket/plain", workers=4)
    requests = proxy.requests()
    index = {port for _, _, key, port in requests if key.endswith("index.json")}
    assert index.isdisjoint(port for _, _, key, port in requests if key.endswith(".mds"))
    assert set(proxy.gets().values()) == {1}


def test_streams_that_fetch_in_their_own_way_are_left_to_it(tmp_path, buckets, proxy):

    class Counting(Stream):
        asked = 0

        def _download_file(self, *args, **kwargs):
            self.asked += 1
            return super()._download_file(*args, **kwargs)

    stream = Counting(remote="s3://bucket/plain", local=str(tmp_path / "own"))
    data = TeachingDataset(streams=[stream], batch_size=4)
    assert read(data) == list(range(SAMPLES))
    assert stream.asked == data.num_shards + 1


def test_defaults_are_streamings(buckets):
    data = TeachingDataset(
        local=str(buckets / "bucket" / "plain"),
        **{k: RUN[k] for k in ("batch_size", "window", "gap")},
    )
    assert (data.streams[0].download_retry, data.streams[0].download_timeout) == (2, 60)
