"""Secrets in texts, settings, errors and log records.

That no command shows a secret is in ``tests/system/test_safety.py``.
"""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.base.errors import TeacherError
from attent_stream.base.redaction import (
    MASK,
    MaskedParser,
    masked,
    masked_record,
    masked_text,
    print_masked,
)
from attent_stream.corpus.errors import CorpusError
from attent_stream.launch.config import ConfigError

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"

SHOWN = [
    ("sftp://me:hush@host:22/x failed", "sftp://***@host:22/x failed"),
    ("s3 at http://me:hu@sh@host/x", "s3 at http://***@host/x"),
    ("https://hushhush@host/x.git", "https://***@host/x.git"),
    ("https://b.s3/x?X-Amz-Signature=hush&X-Amz-Date=1", "https://b.s3/x?***&X-Amz-Date=1"),
    ("https://a.blob/x?sv=1&sig=hush%2B", "https://a.blob/x?sv=1&***"),
    (
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hush==;x",
        "DefaultEndpointsProtocol=https;AccountName=a;***;x",
    ),
    ("header Bearer hushhushhush", "header ***"),
    ("hf_" + "A" * 34, "***"),
    ("key AKIA" + "B" * 16 + ".", "key ***."),
    ("-----BEGIN RSA PRIVATE KEY-----\nhush\n-----END RSA PRIVATE KEY-----\n", "***\n"),
    (
        "unrecognized arguments: --loggers.wandb.api_key=hush x",
        "unrecognized arguments: --loggers.wandb.*** x",
    ),
    ("unrecognized arguments: --api_key=hush x", "unrecognized arguments: *** x"),
    ("unrecognized arguments: --hf-token=hush x", "unrecognized arguments: *** x"),
    ("got {'project': 'p', 'api_key': 'hush'}, no", "got {'project': 'p', '***}, no"),
    ("{project: p, password: hush}", "{project: p, ***}"),
    ("variables.api_key: expected str", "variables.api_key: expected str"),
    ("max_tokens=3 eos_token=x keep=1", "max_tokens=3 eos_token=x keep=1"),
    ("abfss://container@account.dfs/x", "abfss://container@account.dfs/x"),
    ("s3://bucket/a@b/c:d", "s3://bucket/a@b/c:d"),
    ("hf://datasets/me/x a_token=3 1:2@3", "hf://datasets/me/x a_token=3 1:2@3"),
]


def test_text_that_looks_like_a_credential_is_masked():
    for text, shown in SHOWN:
        assert masked_text(text) == shown


def test_secrets_of_the_environment_are_masked_wherever_they_stand(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", "short")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    assert masked_text(f"a {SECRET}b short {tmp_path}") == f"a ***b short {tmp_path}"
    assert masked({"x": [{"name": SECRET}], "hf_token": "short", "GCS_KEY": 12345}) == {
        "x": [{"name": "***"}],
        "hf_token": "***",
        "GCS_KEY": "***",
    }
    for kind in (ConfigError, CorpusError, TeacherError):
        assert str(kind(f"no {SECRET}")) == "no ***"
    try:
        raise OSError(f"store said {SECRET} to ftp://me:hush@host")
    except OSError as error:
        print_masked(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "OSError: store said *** to ftp://***@host" in shown and "Traceback" in shown


@given(
    st.sampled_from(["api_key", "db_password", "HF_TOKEN", "clientSecret", "SESSION_TOKEN"]),
    st.text("abcdefgh0123456789", min_size=1),
)
def test_a_value_is_masked_by_the_name_of_its_key(name, value):
    assert masked_text(f"x {name}={value}, y=1") == f"x {MASK}, y=1"
    assert masked({name: [value, {"z": value}], "tokens": value}) == {name: MASK, "tokens": value}
    for kept in (None, True, False):
        assert masked({name: kept}) == {name: kept}


def test_log_records_are_masked():
    error = ValueError("at ftp://me:hush@host")
    info = (ValueError, error, None)
    record = masked_record("x", logging.INFO, "f", 1, "no %s", ("hf_" + "A" * 34,), info)
    assert record.getMessage() == "no ***" and record.exc_text == "ValueError: at ftp://***@host"
    wrong = masked_record("x", logging.INFO, "f", 1, "no %d", ("one",), None)
    assert wrong.args == ("one",)  # logging itself reports it


def test_a_parser_masks_what_it_refuses(capsys):
    with pytest.raises(SystemExit) as caught:
        MaskedParser().parse_args(["--logger.api_key=hush"])
    assert caught.value.code == 2 and "hush" not in capsys.readouterr().err
