"""The page of a run: what is in it, and what a browser makes of it."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pytest
from choice_logs import table, write_log
from fits import write
from PIL import Image

from attent_stream.cli import main
from attent_stream.fit.log_folder import LogFolder
from attent_stream.report.choices import ranks, read_choices
from attent_stream.report.page import shown_samples
from attent_stream.report.samples import image_of

EVIL = (
    "</script><script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">"
)
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def run(tmp_path):
    """Two streams of 40 samples, of which the second is text that would be code."""
    texts = [[f"sample {n}"] for n in range(40)], [[f"{EVIL} {n}"] for n in range(40)]
    places = [
        write(tmp_path / name, {"text": "str"}, [{"text": text} for (text,) in part])
        for name, part in zip(("web", "bad"), texts, strict=True)
    ]
    rng = np.random.default_rng(1)
    made = table(
        sample=np.arange(80),
        stream=pa.array([0] * 40 + [1] * 40, pa.int32()),
        kept=rng.random(80) < 0.5,
        score=pa.array(rng.normal(size=80), pa.float32()),
        window=pa.array(np.arange(80) // 20, pa.int32()),
        batch=pa.array(np.arange(80) // 20 * 5, pa.int64()),
    )
    streams = [
        {"name": name, "local": place, "first": first}
        for name, place, first in (("web", places[0], 0), ("bad", places[1], 40))
    ]
    return write_log(tmp_path / "choices", {"a.parquet": made}, *streams)


def rows(text: str) -> list[dict]:
    found = re.search(r'<script id="samples" type="application/json">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def test_it_holds_the_samples_and_no_code_of_theirs(run, tmp_path):
    assert main(["report", run, "--out", str(tmp_path / "r.html"), "--each", "80"]) == 0
    text = (tmp_path / "r.html").read_text()
    found = rows(text)
    assert [one["sample"] for one in found] == list(range(80))
    assert found[3]["text"] == "text sample 3" and found[43]["text"] == f"text {EVIL} 3"
    choices = read_choices(run)
    for one in found:
        at = one["sample"]
        assert one["kept"] == int(choices.rows["kept"][at])
        assert one["score"] == pytest.approx(float(choices.rows["score"][at]))
    assert text.count("<script") == 2 and "onerror=" not in text.replace('onerror=\\"', "")
    assert "http://" not in re.sub(
        r"http://www\.w3\.org|http://purl\.org\S*|http://creativecommons\.org\S*", "", text
    )


def measure(path: str, does: str) -> None:
    """Write two metrics of three batches, and what the run is."""
    folder = LogFolder(path)
    folder.write("run.json", json.dumps({"does": does, "torch": "2"}).encode())
    columns = {name: [1, 2, 3] for name in ("batch", "tokens", "samples", "seconds")}
    for number, name in enumerate(("loss/train/total", "metrics/eval/Accuracy")):
        given = {**columns, "name": [name] * 3, "value": [3.0, 2.0, 1.0]}
        folder.write_table(f"metrics-batch00000000{number}-00.parquet", given)


def test_a_plain_run_is_compared_with(run, tmp_path, capsys):
    plain, page = str(tmp_path / "plain"), tmp_path / "r.html"
    measure(run, "what AtteNT does")
    measure(plain, "plain training")
    assert main(["report", f"a={run}", f"p={plain}", "--out", str(page)]) == 0
    text = page.read_text()
    assert "<h3>p</h3><p>plain training.</p>" in text and {one["run"] for one in rows(text)} == {
        "a"
    }
    assert main(["report", f"p={plain}", "--out", str(page)]) == 0
    text = page.read_text()
    assert "What was measured" in text and "<script" not in text and "<h2>Samples" not in text
    assert main(["inspect", plain]) == 2 and "has no log of choices" in capsys.readouterr().err


def test_it_plots_what_runs_have_measured(run, tmp_path):
    measure(run, EVIL)
    assert main(["report", f"a={run}", f"b={run}", "--out", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "What was measured" in text and "Training loss, smoothed" in text
    assert "eval/Accuracy, over time" in text
    assert text.count("<script") == 2 and "&lt;/script&gt;" in text


def test_images_of_each_kind_are_shown():
    for kind, given in (("JPEG", {"exif": b"Exif\0\0II*\0"}), ("JPEG", {}), ("PNG", {})):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, kind, **given)
        assert image_of({"label": 1, "image": buffer.getvalue()}) == buffer.getvalue()
    assert image_of({"image": b"GIF89a", "text": "a"}) is None


def test_it_shows_some_of_each_kind(run):
    choices = read_choices(run)
    found = shown_samples(choices, 3)
    assert 6 <= len(found) <= 18
    scores = choices.rows["score"]
    ids = {one.sample for one in found}
    assert {int(np.argmax(scores)), int(np.argmin(scores))} <= ids
    assert shown_samples(choices, 3) == found


def test_images_are_shown(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(buffer, "PNG")
    samples = [{"image": buffer.getvalue(), "label": 1}]
    data = write(tmp_path / "data", {"image": "bytes", "label": "int"}, samples)
    log = write_log(tmp_path / "log", {"a.parquet": table(sample=[0])}, {"local": data})
    assert main(["report", log, "--out", str(tmp_path / "r.html")]) == 0
    (row,) = rows((tmp_path / "r.html").read_text())
    assert row["image"].startswith("data:image/png;base64,") and "label 1" in row["text"]


def test_mistakes_are_one_sentence(run, tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "has no log of choices" in capsys.readouterr().err
    assert main(["report", f"x={run}", f"x={run}"]) == 2
    assert "two runs are named 'x': give NAME=FOLDER" in capsys.readouterr().err
    assert main(["report", run, "--each", "0"]) == 2
    assert "--each: expected at least 1" in capsys.readouterr().err
    assert main(["report", run, "--out", str(tmp_path / "no" / "r.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("", 80),
        ("stream=web", 40),
        ("search=sample+7", 1),
        ("search=55", 1),
        ("which=dropped", None),
        ("stream=bad&low=0.5", None),
    ],
)
def test_a_browser_filters_and_runs_no_code_of_the_data(run, tmp_path, filters, count):
    assert main(["report", run, "--out", str(tmp_path / "r.html"), "--each", "80"]) == 0
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    options += " --disable-background-networking --disable-component-update --disable-sync"
    command = [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--dump-dom", f"file://{tmp_path / 'r.html'}#{filters}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in ran.stderr, ran.stderr
    assert "<title>What was taught</title>" in ran.stdout
    body = ran.stdout[ran.stdout.index('<tbody id="rows">') : ran.stdout.index("</tbody>")]
    choices = read_choices(run).rows
    if filters == "which=dropped":
        count = int((~choices["kept"].astype(bool)).sum())
    if count is None:
        count = int((ranks(choices)[40:] >= 0.5).sum())
    assert body.count("<tr") == count and f"{count} of 80 samples" in ran.stdout
    shown = [float(one) for one in re.findall(r"<td>(\d\.\d{2})</td>", body)]
    assert shown == sorted(shown, reverse=True) and len(shown) == count
