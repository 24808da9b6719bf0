"""A log on object storage is written by the run, and read by the commands."""

import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader
from stores import s3_client

from attent_stream import AtteNT
from attent_stream.cli import main
from attent_stream.fit.choice_log import ChoiceLog
from attent_stream.report.choices import read_choices
from attent_stream.report.errors import LogError
from attent_stream.report.metrics import read_measured

BUCKET = "logs"


@pytest.fixture
def s3(s3_server, monkeypatch):
    return s3_client(monkeypatch, s3_server, BUCKET)


def test_a_log_on_s3_is_the_local_one(s3, tmp_path, capsys):
    folder = write_tokens(tmp_path / "data", 96, length=LENGTH, vocab=VOCAB)
    url = f"s3://{BUCKET}/runs/{{run_name}}/choices"
    given = {"keep": 0.5, "score": "loss", "remember": "never"}
    logs = [AtteNT(**given), ChoiceLog(url), ChoiceLog(str(tmp_path / "log"))]
    fit(make_loader(folder), logs, max_duration="1ep", run_name="first")
    url = url.format(run_name="first")
    there, here = read_choices(url), read_choices(tmp_path / "log")
    assert there.rows["sample"].tolist() == here.rows["sample"].tolist()
    assert there.rows["kept"].tolist() == here.rows["kept"].tolist()
    assert set(read_measured(url).curves) == set(read_measured(tmp_path / "log").curves)
    assert main(["report", url, "--out", str(tmp_path / "r.html")]) == 0
    assert ">first</h3>" in (tmp_path / "r.html").read_text()
    assert main(["inspect", url, "--top", "3"]) == 0
    capsys.readouterr()
    assert main(["inspect", f"s3://{BUCKET}/nothing"]) == 2
    assert f"s3://{BUCKET}/nothing has no log of choices" in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_one_sentence(s3):
    with pytest.raises(LogError, match="s3://missing-bucket/choices cannot be read: "):
        read_choices("s3://missing-bucket/choices")
