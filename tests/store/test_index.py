"""Fetching of indices with faults of the store."""

import pytest
from stores import SAMPLES, SLOW_DOWN, opened, read
from streaming import Stream

from attent_stream import TeachingDataset
from attent_stream.base.errors import CorruptError, DeniedError, MissingError, UnreachableError

INDEX = {
    "missing": ({"kind": "status", "status": 404}, MissingError, "the store does not have it"),
    "forbidden": ({"kind": "status", "status": 403}, DeniedError, "check the credentials"),
    "503": (SLOW_DOWN, UnreachableError, "check that the store can be reached"),
    "short": ({"kind": "short"}, CorruptError, "index.json is not valid JSON"),
}


@pytest.mark.parametrize("fault", INDEX)
def test_an_index_that_cannot_be_had(tmp_path, proxy, fault):
    rule, kind, text = INDEX[fault]
    proxy.faults(rule | {"match": "index.json", "methods": ["HEAD", "GET"]})
    with pytest.raises(kind, match=text) as caught:
        opened(tmp_path, "s3://bucket/plain", download_retry=1)
    assert str(caught.value).startswith("index.json of stream 0 (s3://bucket/plain), rank 0: ")
    proxy.faults(rule | {"match": "index.json", "methods": ["HEAD", "GET"], "times": 1})
    assert read(opened(tmp_path, "s3://bucket/plain")) == list(range(SAMPLES))


def test_an_index_of_several_streams(tmp_path, proxy):

    streams = [
        Stream(remote=f"s3://bucket/{name}", local=str(tmp_path / name), download_retry=1)
        for name in ("plain", "none")
    ]
    with pytest.raises(MissingError, match=r"index.json of stream 1 \(s3://bucket/none\), rank 0"):
        TeachingDataset(streams=streams, batch_size=4)
