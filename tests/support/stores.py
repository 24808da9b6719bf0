"""What the tests of stores share: a corpus in a folder of buckets behind the fault proxy, and a
taught run over it.
"""

import contextlib
import os
from pathlib import Path

import numpy as np
from corpora import difficulty
from streaming import MDSWriter
from taught import make_loader, run_epochs

from attent_stream import TeachingDataset

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "testsecret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
RUN = {"batch_size": 4, "shuffle": True, "num_canonical_nodes": 1, "window": 4, "gap": 1}
SAMPLES = 160
SLOW_DOWN = {"kind": "status", "status": 503, "message": "Reduce your request rate"}


def use_s3(monkeypatch, url: str) -> None:
    """Let S3 clients speak to this endpoint."""
    for name, value in (CREDENTIALS | {"S3_ENDPOINT_URL": url}).items():
        monkeypatch.setenv(name, value)
    # Where no credentials are, none are asked for in the network
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def s3_client(monkeypatch, url: str, bucket: str):
    """A client of the S3 server at this endpoint, with an own bucket. Other clients use it too."""
    import boto3

    use_s3(monkeypatch, url)
    client = boto3.client("s3", endpoint_url=url)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)
    return client


def write_buckets(folder: Path) -> Path:
    """``bucket/{plain,hashed,zipped}``: the same 160 samples, in about 10 shards each; the
    folder.
    """
    kinds = {
        "plain": {},
        "hashed": {"hashes": ["sha1", "xxh64"]},
        "zipped": {"compression": "zstd", "hashes": ["sha1"]},
    }
    for name, settings in kinds.items():
        columns = {"id": "int", "difficulty": "float32"}
        with MDSWriter(
            out=str(folder / "bucket" / name), columns=columns, size_limit=448, **settings
        ) as writer:
            for sample_id in range(SAMPLES):
                writer.write({"id": sample_id, "difficulty": np.float32(difficulty(sample_id))})
    return folder


def taught_run(local: Path, remote: str | None, workers: int = 2, **data) -> dict:
    """Lessons, scores and choices of one taught epoch; see ``run_epochs``."""
    settings = (
        RUN
        | {"local": str(local), "remote": remote, "download_retry": 3, "download_timeout": 20}
        | data
    )
    return run_epochs(make_loader(settings, {"num_workers": workers}, {}))


def shards_in(folder: Path) -> list[str]:
    """Names of the shard files in a cache, of whatever kind."""
    return sorted(name for name in os.listdir(folder) if name.startswith("shard."))


def opened(tmp_path: Path, remote: str | Path, **settings) -> TeachingDataset:
    """Open a data set with its cache in ``tmp_path``."""
    defaults = {
        "local": str(tmp_path / "cache"),
        "download_retry": 2,
        "download_timeout": 20,
        "batch_size": 4,
    }
    return TeachingDataset(remote=str(remote), **defaults | settings)


def read(dataset: TeachingDataset) -> list[int]:
    """Every sample's id, read in the order of the shards."""
    return [int(dataset[i]["id"]) for i in range(len(dataset))]
