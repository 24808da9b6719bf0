"""The log of choices has each logged sample of each window once, also after a resume."""

import json

import numpy as np
import pyarrow.dataset as parquet
import pytest
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_loader

from attent_stream import AtteNT
from attent_stream.fit.choice_log import ChoiceLog, logged, names_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("data"), 160, length=LENGTH, vocab=VOCAB)


class Heard(AtteNT):
    """Keeps its choices."""

    def __init__(self, **given) -> None:
        super().__init__(**given)
        self.choices = []
        self.listen(lambda choice, batch: self.choices.append((choice, batch)))


def read(path) -> dict[str, list]:
    table = parquet.dataset(sorted(map(str, path.glob("choices-*.parquet")))).to_table()
    return table.sort_by([("epoch", "ascending"), ("window", "ascending")]).to_pydict()


SCORED = {"keep": 0.5, "score": "loss", "select": "hard", "remember": "never"}


@pytest.mark.parametrize("order", ["log first", "attent first"])
def test_it_has_what_was_chosen(folder, tmp_path, order):
    attent, log = Heard(**SCORED), ChoiceLog(str(tmp_path / "choices"))
    both = [log, attent] if order == "log first" else [attent, log]
    fit(make_loader(folder), both, max_duration="1ep")
    rows, at = read(tmp_path / "choices"), 0
    assert len(attent.choices) == 10
    for choice, batch in attent.choices:
        size = choice.window.ids.size
        part = {name: values[at : at + size] for name, values in rows.items()}
        at += size
        assert set(part["window"]) == {choice.window.index} and set(part["batch"]) == {batch}
        assert part["sample"] == choice.window.ids.reshape(-1).tolist()
        assert part["kept"] == choice.kept.reshape(-1).tolist()
        assert part["weight"] == [float(one) for one in part["kept"]]
        assert set(part["by"]) == {choice.decision.by}
        if choice.scores is None:
            assert part["score"] == [None] * size
        else:
            np.testing.assert_array_equal(
                np.float32(part["score"]), choice.scores.reshape(-1).astype(np.float32)
            )
    assert at == len(rows["sample"])
    (stream,) = json.loads((tmp_path / "choices" / "streams.json").read_text())
    assert stream["local"] == folder and stream["first"] == 0


def test_the_same_samples_are_logged_in_each_epoch(folder, tmp_path):
    log = ChoiceLog(str(tmp_path), samples=6, every=2)
    fit(make_loader(folder), [AtteNT(**SCORED), log], max_duration="2ep")
    rows = read(tmp_path)
    assert set(rows["window"]) == {0, 2, 4, 6, 8} and set(rows["epoch"]) == {0, 1}
    share = 6 / (4 * BATCH)
    every = np.flatnonzero(logged(np.arange(160), share))
    assert set(rows["sample"]) <= set(every.tolist())
    assert 0.6 * share * 160 < len(every) < 1.4 * share * 160


def test_no_window_is_missing_after_a_kill(folder, tmp_path):
    """The run is killed after its checkpoint; what it chose after that is not written."""

    class Killed(Exception):
        pass

    class Kill(AtteNT):
        def apply(self, event, state, logger):
            super().apply(event, state, logger)
            if int(state.timestamp.batch) == 17 and event.value == "batch_end":
                raise Killed

    save = {"save_folder": str(tmp_path / "save"), "save_interval": "6ba", "save_overwrite": True}
    with pytest.raises(Killed):
        log = ChoiceLog(str(tmp_path / "choices"))
        fit(make_loader(folder), [Kill(**SCORED), log], max_duration="1ep", **save)
    log = ChoiceLog(str(tmp_path / "choices"))
    path = str(tmp_path / "save" / "ep0-ba12-rank0.pt")
    fit(make_loader(folder), [AtteNT(**SCORED), log], max_duration="1ep", load_path=path)
    fit(make_loader(folder), [AtteNT(**SCORED), ChoiceLog(str(tmp_path / "whole"))])
    found, whole = read(tmp_path / "choices"), read(tmp_path / "whole")
    keys = list(zip(found["window"], found["sample"], strict=True))
    assert set(keys) == set(zip(whole["window"], whole["sample"], strict=True))
    assert len(keys) == len(set(keys))


def test_a_log_that_cannot_be_written_ends_no_run(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    log = ChoiceLog(str(tmp_path / "file" / "choices"))
    watch, _, _ = fit(make_loader(folder), [AtteNT(**SCORED), log], max_duration="1ep")
    assert len(watch.losses) > 15 and "The choice log could not write streams.json" in caplog.text


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"folder": ""}, "choice_log.folder must be a folder"),
        ({"folder": "a", "samples": 0}, "choice_log.samples must be a whole number of at least 1"),
        ({"folder": "a", "every": 1.5}, "choice_log.every must be a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        ChoiceLog(**given)


def test_of_a_plain_run_there_are_metrics_only(folder, tmp_path):
    plain, _, _ = fit(make_loader(folder), [], max_duration="1ep")
    watch, _, _ = fit(make_loader(folder), [ChoiceLog(str(tmp_path))], max_duration="1ep")
    assert watch.losses == plain.losses
    found = {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert found == {"metrics", "run.json", "streams.json"}
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["does"] == "plain training" and "attent" not in told


def test_streams_have_short_names():
    assert names_of(["/data/web/train", "/data/books/train/"]) == ["web", "books"]
    assert names_of(["s3://bucket/web"]) == ["web"]
    assert names_of(["/a/b", "/a/b"]) == ["/a/b", "/a/b"]
    assert names_of(["/a/x/train", "/b/x/train", "/a/y/train"]) == [
        "/a/x/train",
        "/b/x/train",
        "/a/y/train",
    ]
