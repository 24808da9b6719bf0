"""Exceptions of stores and disks by their class, and no secret in any message."""

import errno
import logging
import traceback

import pytest
from stores import CREDENTIALS, taught_run

from attent_stream import TeachingDataset
from attent_stream.base.errors import (
    CacheFolderError,
    DeniedError,
    DiskFullError,
    MissingError,
    StoreError,
    UnreachableError,
)
from attent_stream.store import store_errors

HERE, THERE = "/cache/mine/.attent-parts/x.part", "/mnt/corpus/shard.00000.mds"


REFUSALS = [
    (PermissionError(errno.EACCES, "no", HERE), CacheFolderError),
    # The folder that the local one would be made in
    (OSError(errno.EROFS, "no", "/cache"), CacheFolderError),
    (FileNotFoundError(errno.ENOENT, "no", HERE), CacheFolderError),
    (OSError(errno.ENOSPC, "no", HERE), DiskFullError),
    (FileNotFoundError(errno.ENOENT, "no", THERE), MissingError),
    (FileNotFoundError("Object gs://bucket/x not found."), MissingError),
    (OSError(errno.EIO, "no", THERE), UnreachableError),
    (PermissionError(errno.EACCES, "no", "/cache/mined/x"), UnreachableError),
]


@pytest.mark.parametrize(("error", "kind"), REFUSALS)
@pytest.mark.parametrize("remote", ["s3://bucket/plain", "/mnt/corpus", "/cache"])
def test_the_disk_is_told_from_the_store(error, kind, remote):
    assert store_errors.kind_of(error, "/cache/mine", remote) is kind


def test_a_store_in_the_caches_own_folder_is_a_store():
    error = FileNotFoundError(errno.ENOENT, "no", "/cache/mine/source/x")
    assert store_errors.kind_of(error, "/cache/mine", "/cache/mine/source") is MissingError


def test_missing_credentials_of_gcs_are_named():
    class DefaultCredentialsError(Exception):  # google.auth's
        pass

    with pytest.raises(ValueError) as caught:
        try:
            raise DefaultCredentialsError
        except DefaultCredentialsError:
            raise ValueError("Either set the environment variables `GCS_KEY` ...")  # noqa: B904 (as Streaming does)
    assert store_errors.is_of_a_store(caught.value)
    assert store_errors.kind_of(caught.value) is DeniedError


SECRET = "PLANTED-9f8e7d6c5b4a3210"


@pytest.mark.parametrize("fault", ["refused", "denied", "reset", "gone", "echoed"])
def test_no_secret_in_messages_or_logs(tmp_path, proxy, monkeypatch, caplog, capfd, fault):
    """Planted in the key, the secret, the session's token, and in the endpoint's user and
    password.
    """
    endpoint = (
        proxy.url.replace("://", f"://user:{SECRET}@")
        if fault != "gone"
        else f"http://u:{SECRET}@127.0.0.1:9"
    )
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_ACCOUNT_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
    rule = {
        "refused": {"kind": "status", "status": 403, "methods": ["HEAD"]},
        "denied": {"kind": "status", "status": 400, "methods": ["HEAD"]},
        "reset": {"kind": "reset"},
        "gone": {"kind": "none"},
        "echoed": {
            "kind": "status",
            "status": 409,
            "message": f"key {SECRET}-AWS_SESSION_TOKEN and sig={SECRET} are bad",
        },
    }[fault]
    proxy.faults(rule | {"match": "index"}, rule)
    with caplog.at_level(logging.INFO), pytest.raises(StoreError) as caught:
        taught_run(tmp_path / "cache", "s3://bucket/plain", workers=0, download_retry=1)

    told = (
        "".join(traceback.format_exception(caught.value))
        + caplog.text
        + "".join(capfd.readouterr())
    )
    assert "s3://bucket/plain" in told
    assert SECRET not in told
    assert isinstance(
        caught.value, DeniedError if fault in ("refused", "denied") else UnreachableError
    )


def test_a_servers_answer_is_masked_on_one_line():
    said = f"GET https://me:{SECRET}@host/x?sig={SECRET}&X-Amz-Signature={SECRET}&b=1\nno"
    text = str(store_errors.store_error(OSError(said), "stream 0"))
    assert SECRET not in text and "\n" not in text
    assert "@host/x?" in text and "&b=1 no" in text


def test_credentials_never_given_are_named(tmp_path, proxy, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    proxy.faults({"kind": "status", "status": 403, "methods": ["HEAD"]})  # the bucket is not public
    with pytest.raises(
        DeniedError, match=r"index.json of stream 0 .*NoCredentialsError.*check the credentials"
    ):
        TeachingDataset(
            remote="s3://bucket/plain",
            local=str(tmp_path / "cache"),
            batch_size=4,
            download_retry=1,
        )
