"""``AtteNT()`` on what people train: no run ends that plain training finishes, no score is wrong.

The oracle of a score is brute force in float64 (``field_jobs``), that of a plain run is the same
Trainer without AtteNT.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from field_jobs import BATCH, COUNT, SCORED, Job, Twin, alone
from field_models import JOBS
from field_run import EPOCHS, run_job
from streaming.base.format import reader_from_json
from torch.utils.data import default_collate

from attent_stream import AtteNT
from attent_stream.base.errors import AttentError
from attent_stream.model.traits import Traits, weights_trained

NAMES = [job.name for job in JOBS]
# A batch of one has another loss here: weights cancel out, or what is added is the batch's.
NOT_ALONE = {"class weights", "Mixtral (router's loss added)"}


@pytest.fixture(params=JOBS, ids=NAMES)
def job(request) -> Job:
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each job's data set, written once."""
    made = {}

    def folder_of(job: Job):
        if job.name not in made:
            made[job.name] = tmp_path_factory.mktemp("data") / "set"
            job.write(made[job.name])
        return made[job.name]

    return folder_of


def first_samples(folder: Path) -> list[dict]:
    """Those of the first batch; a StreamingDataset of each job would keep too many files open."""
    shard = json.loads((folder / "index.json").read_text())["shards"][0]
    reader = reader_from_json(str(folder), None, shard)
    return [reader.get_item(index) for index in range(BATCH)]


def test_names_are_different():
    assert len(set(NAMES)) == len(NAMES)


def test_brute_force_is_the_loss_of_a_sample_alone(folders):
    for job in JOBS:
        if job.losses is None or job.name in NOT_ALONE:
            continue
        model, twin = job.model(), Twin(job.model())
        batch = (job.collate or default_collate)(first_samples(folders(job)))
        losses, expected = twin(job.losses, model, batch), twin(alone, model, batch)
        np.testing.assert_allclose(losses, expected, rtol=1e-6, err_msg=job.name)


def test_default_trains_what_plain_training_does(job, folders):
    plain = run_job(job, folders(job))
    assert plain.error is None and len(plain.losses) == EPOCHS * COUNT // BATCH
    taught = run_job(job, folders(job), AtteNT())
    if taught.error is not None:
        raise taught.error
    assert len(taught.warnings) <= 2
    if not taught.taught and not taught.arranged:
        np.testing.assert_array_equal(taught.losses, plain.losses)
    if taught.scored:
        assert taught.difference(job) <= job.close
    elif remembers_by_default(job):
        assert job.expected != SCORED
        assert taught.warnings  # which says why nothing is scored
        assert taught.ledger is None or not np.isfinite(taught.ledger).any()
    else:
        assert not taught.taught and not taught.warnings and taught.ledger is None


def remembers_by_default(job: Job) -> bool:
    """Whether it is text, and at least a tenth of the weights is trained."""
    model = job.model()
    trained, every = weights_trained(model)
    return Traits.of(model).shift_labels and 10 * trained >= every


@pytest.mark.parametrize("score", ["loss", pytest.param("residual", marks=pytest.mark.slow)])
def test_asked_to_remember_it_records_rightly_or_refuses_at_once(job, score, folders):
    taught = run_job(job, folders(job), AtteNT(remember="always", score=score))
    if taught.error is None:
        assert taught.scored and taught.difference(job) <= job.close
        return
    if not isinstance(taught.error, (AttentError, ValueError)):  # ScoreError is one
        raise taught.error
    assert taught.steps == 0
    assert job.expected != SCORED


def test_asked_by_name_it_scores_rightly_or_refuses_at_once(job, folders):
    taught = run_job(job, folders(job), AtteNT(select="hard", score="loss", keep=0.5), epochs=1)
    if taught.error is None:
        assert taught.taught and taught.difference(job) <= job.close
        return
    if not isinstance(taught.error, (AttentError, ValueError)):  # ScoreError is one
        raise taught.error
    assert taught.steps == 0
    assert job.expected != SCORED


def test_twin_is_the_model_of_now():
    """A job whose weights have moved: brute force is of the new ones."""
    job = next(job for job in JOBS if job.name == "regression")
    model = job.model()
    twin = Twin(model)
    batch = (torch.ones(2, 3, 8, 8), torch.zeros(2, 3))
    before = twin(job.losses, model, batch)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(2)
    after = twin(job.losses, model, batch)
    expected = model.net(batch[0]).square().mean(1).detach().numpy()
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    assert not np.allclose(before, after)
