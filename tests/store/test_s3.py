"""Buckets with refused, missing or unnecessary credentials."""

import gc

import pytest
from stores import CREDENTIALS, SAMPLES, opened, read, taught_run

from attent_stream import TeachingDataset
from attent_stream.base.errors import DeniedError, MissingError


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
