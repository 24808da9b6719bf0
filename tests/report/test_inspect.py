"""attent-stream inspect tells what was kept and dropped, and shows it."""

import numpy as np
import pyarrow as pa
import pytest
from choice_logs import table, write_log
from corpora import write_tokens
from corpus_files import documents, write_jsonl
from fits import LENGTH, VOCAB, fit, make_loader
from text_corpora import settings_for

from attent_stream import AtteNT
from attent_stream.cli import main
from attent_stream.corpus import write_text_corpus
from attent_stream.fit.choice_log import ChoiceLog
from attent_stream.report.choices import LogError, histories, read_choices, sorted_by


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs, and the folder of its log."""
    folder = tmp_path_factory.mktemp("run")
    data = write_tokens(folder / "stories", 96, length=LENGTH, vocab=VOCAB)
    log = ChoiceLog(str(folder / "choices"))
    attent = AtteNT(keep=0.5, score="loss", select="hard", remember="never")
    fit(make_loader(data), [attent, log], max_duration="36ba")
    return folder


def test_a_window_is_taken_from_the_later_file(tmp_path):
    first = table(sample=[5, 6, 5, 7], window=pa.array([0, 0, 1, 1], pa.int32()))
    later = table(sample=[8, 9], window=pa.array([1, 1], pa.int32()))
    found = read_choices(write_log(tmp_path / "log", {"a.parquet": first, "b.parquet": later}))
    assert found.rows["sample"].tolist() == [5, 6, 8, 9]


def test_histories_are_those_of_a_loop(tmp_path):
    rng = np.random.default_rng(3)
    samples, kept = rng.integers(0, 9, 60), rng.random(60) < 0.5
    scores = [None if rng.random() < 0.3 else float(rng.normal()) for _ in samples]
    made = table(
        sample=samples,
        kept=kept,
        score=pa.array(scores, pa.float64()),
        window=pa.array([at // 12 for at in range(60)], pa.int32()),
    )
    found = histories(read_choices(write_log(tmp_path / "log", {"a.parquet": made})))
    assert [one.sample for one in found] == sorted(set(samples.tolist()))
    for one in found:
        of = [at for at, sample in enumerate(samples) if sample == one.sample]
        known = [scores[at] for at in of if scores[at] is not None]
        assert (one.seen, one.kept) == (len(of), sum(kept[at] for at in of))
        assert np.isnan(one.score) if not known else one.score == pytest.approx(np.mean(known))
        shares = []
        for at in (at for at in of if scores[at] is not None):
            others = [scores[i] for i in range(at // 12 * 12, at // 12 * 12 + 12) if i != at]
            others = [value for value in others if value is not None]
            shares.append(np.mean([value < scores[at] for value in others]))
        assert np.isnan(one.rank) if not known else one.rank == pytest.approx(np.mean(shares))
    known = [one for one in found if np.isfinite(one.rank)]
    assert sorted_by(found, "highest")[0].rank == max(one.rank for one in known)
    assert sorted_by(found, "lowest")[0].rank == min(one.rank for one in known)
    assert sorted_by(found, "kept")[0].kept == max(one.kept for one in found)
    most = max(one.seen - one.kept for one in found)
    first = sorted_by(found, "dropped")[0]
    assert first.seen - first.kept == most


def test_equal_scores_have_equal_ranks(tmp_path):
    made = table(sample=[1, 2, 3, 4], score=pa.array([5.0, 5.0, 1.0, None], pa.float32()))
    found = histories(read_choices(write_log(tmp_path / "log", {"a.parquet": made})))
    assert [one.rank for one in found[:3]] == [0.75, 0.75, 0.0] and np.isnan(found[3].rank)


def test_it_prints_samples_of_a_run(run, capsys):
    assert main(["inspect", str(run / "choices"), "--dropped", "--top", "5"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "windows" in said[0] and "% kept" in said[0]
    assert said[2].split() == ["stream", "sample", "seen", "kept", "score", "rank", "what"]
    assert len([line for line in said[4:] if line.startswith("stories")]) == 5
    assert said[-1].startswith("... and ") and said[-1].endswith(" others")
    loader = make_loader(str(run / "stories"))
    for line in said[4:9]:
        _, sample, seen, kept, _, _, *ids = line.split()
        assert int(kept) < int(seen)
        assert ids == [str(one) for one in loader.dataset[int(sample)]["tokens"].tolist()]


def test_text_is_decoded_by_the_tokenizer_beside_it(tmp_path, capsys):
    texts = [f"{text} \x1b[31m red" for text in documents(60)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    write_text_corpus(settings_for(tmp_path, f"a={source}"))
    data = str(tmp_path / "out" / "a" / "train")
    made = table(sample=[0, 1])
    folder = write_log(tmp_path / "log", {"a.parquet": made}, {"local": data})
    assert main(["inspect", folder]) == 0
    said = capsys.readouterr().out
    assert texts[0].split()[0] in said and "\x1b" not in said


def test_other_samples_are_described(tmp_path, capsys):
    from fits import write

    samples = [{"picture": b"abc" * 5, "label": 3}]
    data = write(tmp_path / "data", {"picture": "bytes", "label": "int"}, samples)
    made = {"a.parquet": table(sample=[0, 1])}
    folder = write_log(tmp_path / "log", made, {"local": data})
    assert main(["inspect", folder]) == 0
    said = capsys.readouterr().out
    assert "label 3, picture 15 bytes" in said and "(not readable:" in said


def test_streams_are_told_apart(tmp_path, capsys):
    made = table(
        sample=[1, 12, 13], stream=pa.array([0, 1, 1], pa.int32()), kept=[True, False, True]
    )
    streams = [
        {"name": name, "first": first} for name, first in (("web", 0), ("books", 10), ("none", 20))
    ]
    folder = write_log(tmp_path / "log", {"a.parquet": made}, *streams)
    assert main(["inspect", folder, "--stream", "books"]) == 0
    said = capsys.readouterr().out
    assert "  web: 1 candidates, 100.0% kept" in said and "none: 0 candidates, none logged" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("books")] == [
        "12",
        "13",
    ]
    assert main(["inspect", folder, "--stream", "other"]) == 2
    assert "expected one of web, books, none, got 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "streams.json").unlink(), "has no log of choices"),
        (lambda folder: (folder / "a.parquet").unlink(), "has no log of choices"),
        (lambda folder: (folder / "a.parquet").write_bytes(b"no"), "cannot be read"),
        (lambda folder: (folder / "streams.json").write_text("[{}]"), "cannot be read"),
        (lambda folder: (folder / "streams.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_log_that_is_none_is_named(tmp_path, capsys, spoil, reason):
    folder = write_log(tmp_path / "log", {"a.parquet": table(sample=[1])})
    spoil(tmp_path / "log")
    with pytest.raises(LogError, match=reason):
        read_choices(folder)
    assert main(["inspect", folder]) == 2
    said = capsys.readouterr().err
    assert said.startswith("attent-stream: error: ") and said.count("\n") == 1


def test_other_mistakes_are_named(run, tmp_path, capsys):
    folder = str(run / "choices")
    assert main(["inspect", folder, "--top", "0"]) == 2
    assert "--top: expected at least 1, got 0" in capsys.readouterr().err
    assert main(["inspect", folder, "--tokenizer", str(tmp_path)]) == 2
    assert "no tokenizer.json at" in capsys.readouterr().err
