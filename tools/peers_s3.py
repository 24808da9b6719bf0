"""The same from an S3 server on loopback, with an empty cache; see ``peers.py``.

``serve`` needs moto's server (``pip install "moto[server]"``). It is written in Python and serves
all peers alike, so what is measured is mostly how a peer waits for it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peers
from peers import (
    PEERS,
    Peer,
    collate_columns,
    collate_tensors,
    loader_of,
    read_tars,
    write_litdata,
    write_mds,
    write_webdataset,
)

BUCKET = "bench"


@contextmanager
def serve() -> Iterator[None]:
    """Run a server, and point this process and those that it starts to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ |= {
        "S3_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _listens(port)
        _client().create_bucket(Bucket=BUCKET)
        yield
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def upload(folder: Path, name: str) -> None:
    """Put a folder's files into the bucket."""
    client = _client()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{name}/{path.relative_to(folder)}"
            # As curl sends no credentials
            client.upload_file(str(path), BUCKET, key, ExtraArgs={"ACL": "public-read"})


def _client() -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])


def _cache() -> str:
    return tempfile.mkdtemp(dir=os.environ.get("PEERS_CACHE"))


def _where(folder: Path) -> dict[str, str]:
    return {"remote": f"s3://{BUCKET}/{folder.name}", "local": _cache()}


def read_ours(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    return peers.read_ours(folder, workers, batch, **_where(folder))


def read_streaming(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    return peers.read_streaming(folder, workers, batch, **_where(folder))


def read_litdata(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming import downloader
    from peers import LENGTH

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # which it has no setting for
    data = StreamingDataset(
        f"s3://{BUCKET}/{folder.name}",
        cache_dir=_cache(),
        item_loader=TokensLoader(block_size=LENGTH),
        shuffle=True,
        drop_last=True,
        storage_options={"endpoint_url": os.environ["S3_ENDPOINT_URL"]},
    )
    return StreamingDataLoader(
        data, batch_size=batch, num_workers=workers, drop_last=True, collate_fn=collate_tensors
    )


def read_webdataset(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    names = sorted(path.name for path in folder.glob("*.tar"))
    where = f"{os.environ['S3_ENDPOINT_URL']}/{BUCKET}/{folder.name}"
    return read_tars([f"pipe:curl -s -f {where}/{name}" for name in names], workers, batch)


def write_parquet(tokens: Any, folder: Path) -> None:
    from datasets import Dataset, Features, List, Value
    from peers import LENGTH

    features = Features({"tokens": List(Value("uint16"), length=LENGTH)})
    data = Dataset.from_dict({"tokens": tokens}, features=features)
    for number in range(16):
        part = data.shard(16, number, contiguous=True)
        part.to_parquet(str(folder / f"{number:05}.parquet"))


def read_datasets_stream(folder: Path, workers: int, batch: int) -> Iterable[Any]:
    from datasets import load_dataset

    data = load_dataset(
        "parquet",
        data_files=f"s3://{BUCKET}/{folder.name}/*.parquet",
        storage_options={"endpoint_url": os.environ["S3_ENDPOINT_URL"]},
        streaming=True,
        split="train",
    )
    data = data.shuffle(buffer_size=1000, seed=1).with_format("numpy")
    return loader_of(data, workers, batch, collate_fn=collate_columns)


S3 = {
    "ours": Peer((), write_mds, read_ours),
    "streaming": Peer((), None, read_streaming, "ours"),
    "litdata": Peer(("litdata",), write_litdata, read_litdata),
    "webdataset": Peer(("webdataset",), write_webdataset, read_webdataset),
    "datasets, streamed": Peer(("datasets", "s3fs"), write_parquet, read_datasets_stream),
}
assert set(S3) <= set(PEERS)
