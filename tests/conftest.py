"""What all tests share."""

import gc
import os
import shutil
import sys
import tempfile
from functools import partial
from itertools import count
from multiprocessing import process, resource_sharer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from streaming_memory import streaming_cleaned_up

# The same examples every time, and no test that a slow machine fails.
settings.register_profile(
    "project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


def pytest_collection_modifyitems(items):
    for item in items:
        # A machine that others use can be late where a test waits for processes
        if item.get_closest_marker("processes"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[".*"]))


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Else torch starts compile processes as soon as transformers is asked for all its models
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_configure(config):
    """Streaming looks for a free name of shared memory and takes it a moment later. Workers that
    run tests at once look for it in different places.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw"):
        from streaming.base.shared import prefix

        first = 50_000 * (1 + int(worker.removeprefix("gw")))
        prefix._each_prefix_int = partial(count, first)


@pytest.fixture(scope="module")
def zygote():
    """Forks what ``faulty.py`` has, imported once."""
    from zygote import Zygote

    tests = Path(__file__).parent
    made = Zygote(["streaming", "faulty"], [str(tests / "support"), str(tests.parent)])
    yield made
    made.close()


@pytest.fixture(scope="module")
def sends_memory():
    """For tests that send shared memory from this process, as workers do. multiprocessing then
    makes a folder for its socket, which forks of later tests would inherit, and remove.
    """
    config = process.current_process()._config
    before = config.get("tempdir")
    with tempfile.TemporaryDirectory(prefix="pymp-") as folder:
        config["tempdir"] = folder
        yield
        resource_sharer.stop()
        config["tempdir"] = before  # None is as if it were not there


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    """A folder of buckets; see ``stores.write_buckets``."""
    from stores import write_buckets

    return write_buckets(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def shared_proxy(buckets):
    from store_proxy import StoreProxy

    proxy = StoreProxy(buckets)
    yield proxy
    proxy.stop()


@pytest.fixture
def proxy(shared_proxy, monkeypatch):
    """A store with these buckets and no faults yet, that S3 clients speak to; nobody waits between
    tries.
    """
    from stores import use_s3

    from attent_stream.store import fetch

    use_s3(monkeypatch, shared_proxy.url)
    # Workers are forked: it holds for them too
    monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)
    shared_proxy.faults()
    shared_proxy.forget()
    return shared_proxy


@pytest.fixture(autouse=True)
def _streaming_per_test():
    # So that afterwards only what the test has made is looked through: a quarter of a second less
    # for each
    gc.freeze()
    with streaming_cleaned_up():
        yield


@pytest.fixture(autouse=True, scope="module")
def _no_process_group_left():
    """Composer makes one of a single rank where a model is to be sharded, and keeps it."""
    yield
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture(autouse=True, scope="module")
def _streaming_per_module():
    """For what fixtures of a module have made. To look through all objects takes a second, so it is
    done where there is something to close.
    """
    with streaming_cleaned_up(gc.unfreeze):
        yield
    gc.unfreeze()


@pytest.fixture(scope="session", params=["rgw", "moto"])
def s3_server(request):
    """Endpoint of a real S3 server, started once; its tests are skipped by its name where it is not
    installed.
    """
    from servers import S3_SERVERS

    folder = Path(tempfile.mkdtemp(prefix="s3-"))  # a short path, which sockets need
    try:
        with S3_SERVERS[request.param](folder) as endpoint:
            yield endpoint
    finally:
        shutil.rmtree(folder, ignore_errors=True)
