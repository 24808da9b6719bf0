"""A forward with its loss. Oracle: the model's own forward and loss on the first samples."""

import copy

import pytest
import torch
from fits import make_model
from token_losses import text

from attent_stream.base.errors import ScoreError
from attent_stream.fit.training_forward import training_forward
from attent_stream.model.batch_form import BatchForm


@pytest.mark.parametrize("size", [1, 3])
def test_it_is_the_models_own(size):
    model, batch = make_model(), text()
    before = copy.deepcopy(batch)
    trained = training_forward(model, BatchForm(), batch, size)
    part = {name: value[:size] for name, value in before.items()}
    wanted = model.loss(model(part), part)
    torch.testing.assert_close(trained.total, wanted.item(), rtol=1e-6, atol=0)
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_one_sample_where_memory_runs_out():
    model, batch, sizes = make_model(), text(), []
    forward = model.forward

    def short_of_memory(part):
        sizes.append(len(part["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return forward(part)

    model.forward = short_of_memory
    training_forward(model, BatchForm(), batch, 3)
    assert sizes == [3, 1]


def test_a_batch_without_labels():
    batch = {"input_ids": text()["input_ids"]}
    with pytest.raises(ScoreError, match="the batch has no tensor 'labels', it has"):
        training_forward(make_model(), BatchForm(), batch, 2)
