"""Runs with a target: it is taught, resumes bit for bit, and does not depend on ranks.

Oracles: which samples are like the target is known; a run that was never stopped; a run on one
rank.
"""

import logging
import shutil

import numpy as np
import pytest
from fits import BATCH, fit, make_loader, make_model
from ranks_jobs import run_ranks
from target_corpora import is_high, mixed, write_kinds

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator

SAMPLES = 320


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {
        "stream": write_kinds(folder / "stream", mixed(SAMPLES)),
        "target": write_kinds(folder / "target", "h" * 60, seed=5),
        "other": write_kinds(folder / "other", "l" * 60, seed=6),
        "same": write_kinds(folder / "same", mixed(240, seed=7), seed=7),
    }


def high_share(watch) -> float:
    """Share of the tokens trained on that are of high samples, after the first window."""
    return float(np.mean([is_high(row).mean() for row in watch.tokens[4:]]))


def test_samples_like_the_target_are_chosen(folders):
    watch, memory, _ = fit(make_loader(folders["stream"]), [AtteNT(target=folders["target"])])
    assert high_share(watch) > 0.7  # some windows have fewer than they need
    metrics = {name: [value for _, value in memory.data[name]] for name in memory.data}
    assert set(metrics["attent/keep"]) == {0.25} and len(metrics["attent/keep"]) == 20
    assert len(metrics["attent/target_loss"]) == 1  # after so few batches, only at the end
    kept, median = metrics["attent/kept_q50"], metrics["attent/target_resemblance"]
    assert kept[0] > metrics["attent/dropped_q50"][0] and abs(kept[-1] - median[-1]) < 0.5
    assert not any(name.startswith("attent/fidelity") for name in metrics)
    assert metrics["attent/candidates"][-1] == 0  # none was forwarded


def test_samples_whose_gradient_is_the_targets_are_chosen(folders):
    algorithm = AtteNT(target=folders["target"], score="alignment", arrange="none")
    watch, memory, _ = fit(make_loader(folders["stream"]), [algorithm])
    assert high_share(watch) > 0.6
    assert all(np.isfinite(value) for _, value in memory.data["attent/kept_q50"])


def test_no_model_is_asked_to_score(folders):
    model, forwards = make_model(), []
    model.register_forward_hook(lambda module, *_: forwards.append(module.training))
    fit(make_loader(folders["stream"]), [AtteNT(target=folders["target"])], model)
    # Only the target's loss is forwarded, after training: six samples, in two batches.
    assert forwards.count(False) == 2


HOW = {
    "lazy": {"order": "lazy"},
    "aligned": {"score": "alignment", "keep": 0.5},
    "default": {},
    "weighted": {"keep": 0.5, "select": "unbiased"},
    "again": {"duration": "2ep", "temperature": 0.5},
}


def loader_of(
    folder: str, batch_size: int, *, order: str = "auto", num_workers: int = 0
) -> TeachingDataLoader:
    dataset = TeachingDataset(**data_of(folder, batch_size), order=order)
    return TeachingDataLoader(
        dataset, batch_size=batch_size, collate_fn=TokenCollator(), num_workers=num_workers
    )


def data_of(folder: str, batch_size: int) -> dict:
    return {
        "local": folder,
        "batch_size": batch_size,
        "window": 4,
        "gap": 1,
        "shuffle": True,
        "num_canonical_nodes": 1,
    }


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resume_bit_for_bit(folders, tmp_path, how, workers):
    settings = dict(HOW[how])
    common = {"max_duration": settings.pop("duration", "1ep"), "seed": 3}
    settings |= {"target": folders["target"]}

    order = settings.pop("order", "auto")

    def run(**more):
        loader = loader_of(folders["stream"], BATCH, order=order, num_workers=workers)
        return fit(loader, [AtteNT(**settings)], make_model(0.2), **common, **more)[0]

    saving = {"save_folder": str(tmp_path), "save_interval": "1ba", "save_overwrite": True}
    whole = run(**saving)
    for batch in (1, 5, 17) if workers == 0 else (5,):
        path = str(next(tmp_path.glob(f"ep*-ba{batch}-rank0.pt")))
        rest = run(load_path=path)
        assert rest.tokens == whole.tokens[batch:], batch
        assert rest.losses == whole.losses[batch:], batch


@pytest.mark.processes
def test_lessons_and_resumes_do_not_depend_on_ranks(folders, tmp_path):
    attent = {"target": folders["target"], "arrange": {"balance": "tokens"}}
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    job = {"data": data_of(folders["stream"], 4), "attent": attent, "saving": saving}
    logs = [log["a"] for log in run_ranks(tmp_path, {"a": job})]
    assert not [log["error"] for log in logs if "error" in log]
    of_ranks = [sorted(sum(rows, [])) for rows in zip(*(log["rows"] for log in logs), strict=True)]
    alone, _, _ = fit(loader_of(folders["stream"], 8), [AtteNT(**attent)])
    assert of_ranks == [sorted(rows) for rows in alone.tokens]
    for batch in (3,):
        path = str(next((tmp_path / "saved").glob(f"ep0-ba{batch}-rank0.pt")))
        rest, _, _ = fit(loader_of(folders["stream"], 8), [AtteNT(**attent)], load_path=path)
        assert [sorted(rows) for rows in rest.tokens] == of_ranks[batch:], batch


@pytest.mark.processes
def test_ranks_see_together_that_a_stream_is_like_the_target(folders, tmp_path):
    """Each rank looks at its share of the stream; all do what one rank does without a target."""
    data = data_of(folders["stream"], 4)
    jobs = {
        name: {"data": data, "attent": {"target": folders[name]} if name in folders else {}}
        for name in ("same", "target", "none")
    }
    logs = run_ranks(tmp_path, jobs)
    assert not [log[name]["error"] for log in logs for name in jobs if "error" in log[name]]
    for log in logs:
        assert log["same"]["rows"] == log["none"]["rows"]
        assert log["target"]["rows"] != log["none"]["rows"]


def test_a_target_in_an_object_store(folders, tmp_path, buckets, proxy, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected, _, _ = fit(make_loader(folders["stream"]), [AtteNT(target=folders["target"])])
    shutil.copytree(folders["target"], buckets / "bucket" / "good", dirs_exist_ok=True)
    stored = {"remote": "s3://bucket/good"}
    found, _, _ = fit(make_loader(folders["stream"]), [AtteNT(target=stored)])
    assert found.tokens == expected.tokens
    assert any("good" in str(one) for one in proxy.requests())


def test_a_checkpoint_of_another_score_goes_on(folders, tmp_path):
    """The counts or the direction of another score mean nothing, and are left behind."""
    scores = ("resemblance", "alignment")
    for score in scores:
        saving = {"save_folder": str(tmp_path / score), "save_interval": "2ba"}
        attent = AtteNT(target=folders["target"], score=score)
        fit(make_loader(folders["stream"]), [attent], max_duration="4ba", **saving)
    for score, other in (scores, scores[::-1]):
        path = str(next((tmp_path / other).glob("ep0-ba2-rank0.pt")))
        attent = AtteNT(target=folders["target"], score=score)
        watch, _, _ = fit(make_loader(folders["stream"]), [attent], load_path=path)
        assert len(watch.losses) > 10


def test_windows_are_wider_where_their_length_is_not_given(folders, caplog):
    dataset = TeachingDataset(local=folders["stream"], batch_size=1, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=1, collate_fn=TokenCollator())
    with caplog.at_level(logging.INFO, logger="attent_stream"):
        fit(loader, [AtteNT(target=folders["target"])], max_duration="100ba")
    assert dataset.window == SAMPLES // 4  # the epoch has four; 128 without that
    assert "The stream will be read about 1.2 times" in caplog.text
    fit(loader, [AtteNT(keep=0.5, select="random")], max_duration="20ba")
    assert dataset.window == 32
