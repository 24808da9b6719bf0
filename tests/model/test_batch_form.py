"""Batches are treated as a DataSpec does it."""

import torch
from composer import DataSpec

from attent_stream.model.batch_form import BatchForm


def test_without_a_spec_batches_are_taken_as_they_are():
    form, batch = BatchForm(), {"x": torch.arange(5)}
    assert form.transformed(batch) is batch and form.rows(batch) == 5
    assert [len(one["x"]) for one in form.parts(batch, 2)] == [2, 2, 1]
    assert BatchForm.of(object())._spec is None  # no Trainer is fitting


def test_a_specs_own_functions_are_used():
    spec = DataSpec(
        [],
        get_num_samples_in_batch=lambda batch: len(batch["x"]) // 2,
        split_batch=lambda batch, size: [{"x": batch["x"][: 2 * size]}],
        batch_transforms=lambda batch: {"x": batch["x"] + 1},
        microbatch_transforms=lambda batch: {"x": batch["x"] * 10},
    )
    form, batch = BatchForm(spec), {"x": torch.arange(6)}
    assert form.rows(batch) == 3
    assert form.transformed(batch)["x"].tolist() == [1, 2, 3, 4, 5, 6]
    (part,) = form.parts(batch, 1)
    assert part["x"].tolist() == [0, 10]


def test_a_spec_that_counts_otherwise_is_split_by_its_count():
    spec = DataSpec([], get_num_samples_in_batch=lambda batch: 4)
    batch = {"samples": torch.arange(4), "tokens": torch.arange(9)}
    parts = BatchForm(spec).split(batch, 3)
    assert [one["samples"].tolist() for one in parts] == [[0, 1, 2], [3]]
    assert all(len(one["tokens"]) == 9 for one in parts)
