"""A target that is like the stream: nothing is chosen toward it, and the default is as without."""

import logging
from itertools import product

import numpy as np
import pytest
from fits import fit, make_loader, make_model
from target_corpora import mixed, write_kinds

from attent_stream import AtteNT
from attent_stream.fit.alike import halves, is_alike, share_alike


def test_every_other_sample_is_counted_whatever_the_batches():
    rng = np.random.default_rng(0)
    for sizes in ([1] * 7, [2, 2, 3], [4, 1, 2]):
        samples = rng.integers(0, 9, (7, 3))
        views = np.split(samples, np.cumsum(sizes)[:-1])
        counted, scored = halves(views)
        np.testing.assert_array_equal(np.concatenate(counted), samples[::2])
        np.testing.assert_array_equal(np.concatenate(scored), samples[1::2])


def test_a_share_is_of_all_that_are_above_the_targets_worst():
    target = np.arange(100.0)
    scores = np.array([*np.full(30, 1.0), *np.full(70, 2.0), np.nan, -np.inf])
    assert share_alike(scores, target) == 0.7
    assert share_alike(scores[:50], target) is None
    assert share_alike(scores, target[:15]) is None
    assert [is_alike(share) for share in (None, 0.5, 0.51)] == [False, False, True]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    kinds = {"stream": mixed(320), "same": mixed(240, seed=7), "high": "h" * 240}
    return {
        name: write_kinds(folder / name, text, seed=seed)
        for seed, (name, text) in enumerate(kinds.items())
    }


def told(caplog) -> str:
    return "\n".join(r.message for r in caplog.records if r.name.startswith("attent_stream"))


def test_the_default_is_as_without_a_target(folders, caplog):
    with caplog.at_level(logging.INFO, logger="attent_stream"):
        watch, memory, _ = fit(make_loader(folders["stream"]), [AtteNT(target=folders["same"])])
    assert "the stream is like the target, so none of it is dropped for that;" in told(caplog)
    assert "attent/target_loss" in memory.data
    plain, _, _ = fit(make_loader(folders["stream"]), [AtteNT()])
    assert watch.tokens == plain.tokens and watch.losses == plain.losses


def test_what_is_asked_for_is_done_all_the_same(folders, caplog):
    with caplog.at_level(logging.INFO, logger="attent_stream"):
        for more in ({"keep": 0.5}, {"select": "soft"}, {"score": "resemblance"}):
            fit(make_loader(folders["stream"]), [AtteNT(target=folders["same"], **more)])
        fit(make_loader(folders["stream"]), [AtteNT(target=folders["high"])])
    assert told(caplog).count("samples like the target are chosen") == 4
    assert "the stream is like the target" not in told(caplog)


def test_a_resumed_run_goes_on_as_it_began(folders, tmp_path):
    """Also with another target, as the checkpoint says what was found."""

    def run(target, **more):
        algorithm = AtteNT(target=folders[target])
        return fit(make_loader(folders["stream"]), [algorithm], make_model(0.2), seed=3, **more)[0]

    whole = {}
    for target in ("same", "high"):
        saving = {"save_folder": str(tmp_path / target), "save_interval": "1ba"}
        whole[target] = run(target, **saving)
    for begun, batch in product(whole, (1, 5)):
        path = str(next((tmp_path / begun).glob(f"ep0-ba{batch}-rank0.pt")))
        rest = run(begun, load_path=path)
        assert rest.tokens == whole[begun].tokens[batch:], (begun, batch)
        assert rest.losses == whole[begun].losses[batch:], (begun, batch)
