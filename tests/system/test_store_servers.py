"""Real servers on loopback, end to end: the corpus tool writes to the store, a taught run streams
from it and saves to it, is killed, and goes on; and Streaming's own downloaders of GCS and Azure
against emulators.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from corpus_files import documents, write_jsonl
from servers import azurite, gcs
from store_fit import LENGTH, VOCAB, fit
from store_proxy import StoreProxy
from stores import SAMPLES, taught_run, use_s3, write_buckets

from attent_stream.base.errors import DeniedError, MissingError
from attent_stream.cli import main
from attent_stream.data.dataset import TeachingDataset
from attent_stream.store import fetch

pytestmark = [pytest.mark.slow, pytest.mark.processes]
CORPUS = "s3://runs/corpus"


@pytest.fixture
def no_process_group():
    """Composer leaves torch.distributed initialised, which is nothing for the next test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The fault proxy before a real server, and a client."""
    import boto3

    proxy = StoreProxy(s3_server)
    use_s3(monkeypatch, proxy.url)
    yield proxy, boto3.client("s3", endpoint_url=s3_server)
    proxy.stop()


def make_bucket(client, name: str) -> None:
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=name)


def killed_run(folder: Path, remote: str, saved: str) -> None:
    """In a process of its own, forked from this one, which has imported everything."""
    os.setsid()
    os.chdir(folder)
    with open(folder / "said.txt", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        fit(remote, str(folder / "cache"), saved, kill_at=7)


# Composer starts three processes to upload with, twice, and each imports all of it
@pytest.mark.timeout(900)
def test_write_stream_teach_save_kill_resume(tmp_path, s3, monkeypatch, request, no_process_group):
    """With faults while the killed run reads. Oracle: the run that nothing happened to."""
    if "moto" in request.node.name and shutil.which("radosgw"):
        pytest.skip("moto is for where there is no radosgw")
    proxy, client = s3
    make_bucket(client, "runs")
    source = write_jsonl(tmp_path / "web.jsonl", documents(150))
    options = (
        f"--out {CORPUS} --vocab-size {VOCAB} --train-tokenizer --seq-len {LENGTH} --shard-size "
        "5kb --hash xxh64"
    )
    assert main(["corpus", "text", f"web={source}", *options.split(), "--overwrite"]) == 0
    remote, saved = f"{CORPUS}/web", f"s3://runs/saved-{tmp_path.name}"
    faults = [
        {"kind": "reset", "match": "web/.*shard", "times": 2},
        {"kind": "status", "status": 503, "match": "web/.*shard", "times": 2},
        {"kind": "flip", "match": "web/.*shard", "times": 1},
    ]
    proxy.faults(*faults)
    (tmp_path / "there").mkdir()
    killed = multiprocessing.get_context("fork").Process(
        target=killed_run, args=(tmp_path / "there", remote, saved)
    )
    killed.start()
    try:
        killed.join(timeout=600)
        assert killed.exitcode == -signal.SIGKILL, (tmp_path / "there" / "said.txt").read_text()[
            -2000:
        ]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)
    proxy.faults()
    proxy.forget()
    whole = fit(remote, str(tmp_path / "whole"))
    assert set(proxy.gets().values()) == {1}
    (tmp_path / "elsewhere").mkdir()
    # As on another machine: the checkpoint comes from the store
    monkeypatch.chdir(tmp_path / "elsewhere")
    rest = fit(remote, str(tmp_path / "again"), saved)
    done = len(whole.tokens) - len(rest.tokens)
    print(f"{len(whole.tokens)} batches, went on at {done}; {len(proxy.gets())} shards")
    assert done > 0 and done % 3 == 0
    assert rest.tokens == whole.tokens[done:]
    assert rest.losses == whole.losses[done:]


def upload(client, folder: Path, bucket: str) -> None:
    make_bucket(client, bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())


def test_a_real_servers_refusals_are_named(tmp_path, s3, monkeypatch, request):
    """What a server itself says where a shard or a bucket is missing, or the secret is wrong."""
    proxy, client = s3
    monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)
    upload(client, write_buckets(tmp_path / "store") / "bucket", "refusals")
    client.delete_object(Bucket="refusals", Key="plain/shard.00003.mds")
    data = TeachingDataset(
        remote="s3://refusals/plain", local=str(tmp_path / "cache"), batch_size=4
    )
    with pytest.raises(MissingError, match=r"shard 3 \(shard.00003.mds, "):
        [data[i] for i in range(SAMPLES)]
    with pytest.raises(MissingError, match="index.json of stream 0"):
        TeachingDataset(
            remote="s3://no-such-bucket/plain", local=str(tmp_path / "none"), batch_size=4
        )
    if "rgw" in request.node.name:  # moto checks no signature
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        with pytest.raises(DeniedError, match="check the credentials") as caught:
            TeachingDataset(
                remote="s3://refusals/plain", local=str(tmp_path / "denied"), batch_size=4
            )
        assert "not-the-secret" not in str(caught.value)


def test_gcs(tmp_path, monkeypatch):
    from google.cloud import storage

    buckets = write_buckets(tmp_path / "store") / "bucket"
    expected = taught_run(buckets / "hashed", None, workers=0)
    with gcs(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        bucket = storage.Client().create_bucket("bucket")
        for path in (buckets / "hashed").iterdir():
            bucket.blob(f"hashed/{path.name}").upload_from_filename(str(path))
        assert taught_run(tmp_path / "cache", "gs://bucket/hashed") == expected
        bucket.blob("hashed/shard.00003.mds").delete()
        monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)
        with pytest.raises(MissingError, match=r"stream 0 \(gs://bucket/hashed\), shard 3 "):
            taught_run(tmp_path / "second", "gs://bucket/hashed", workers=0)


def test_azure(tmp_path, monkeypatch):
    """Streaming has Azure's host built in, so the client's making is patched; all else is
    its own.
    """
    from azure.storage.blob import BlobServiceClient
    from streaming.base.storage.download import AzureDownloader

    buckets = write_buckets(tmp_path / "store") / "bucket"
    expected = taught_run(buckets / "hashed", None, workers=0)
    # Azurite's one account; its key is published with it.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    monkeypatch.setenv("AZURE_ACCOUNT_NAME", "devstoreaccount1")
    monkeypatch.setenv("AZURE_ACCOUNT_ACCESS_KEY", key)
    with azurite(tmp_path / "azurite") as url:

        def client_of(self, remote):
            self._azure_client = BlobServiceClient(account_url=url, credential=self.credential)

        monkeypatch.setattr(AzureDownloader, "_create_azure_client", client_of)
        container = BlobServiceClient(account_url=url, credential=key).create_container("box")
        for path in (buckets / "hashed").iterdir():
            container.upload_blob(f"hashed/{path.name}", path.read_bytes())
        remote = "azure://devstoreaccount1.blob.core.windows.net/box/hashed"
        assert taught_run(tmp_path / "cache", remote) == expected
        container.delete_blob("hashed/shard.00003.mds")
        monkeypatch.setattr(fetch, "pause", lambda attempt, longest: 0)
        with pytest.raises(MissingError, match=r"shard 3 ") as caught:
            taught_run(tmp_path / "second", remote, workers=0)
        assert key not in str(caught.value)
