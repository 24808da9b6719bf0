"""Lessons in pieces are taken apart, and a micro-batch has as many tokens as ever."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer import Algorithm, Event
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader, make_rotary

from attent_stream import AtteNT
from attent_stream.base.errors import ScoreError
from attent_stream.effects.short_lessons import ShortLessons


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


def test_a_batch_that_is_changed_before_it_is_cut_does_not_end_the_run(folder, caplog):
    class Changes(Algorithm):
        def match(self, event, state):
            return event == Event.AFTER_DATALOADER

        def apply(self, event, state, logger):
            state.batch = {**state.batch, "note": ["changed"] * len(state.batch["input_ids"])}

    watch, _, trainer = fit(make_loader(folder, window=8), [AtteNT(), Changes()], make_rotary())
    assert int(trainer.state.timestamp.batch) == 24 and len(watch.losses) == 24
    assert sum("not cut into pieces" in record.getMessage() for record in caplog.records) == 1


def made(units: int, microbatch, asked: bool = False):
    """Short lessons of two rows of 8 tokens, and a state."""
    loader = SimpleNamespace(epoch=SimpleNamespace(units=units, lesson=[np.arange(2 * units)]))
    teacher = SimpleNamespace(stopped=[])
    teacher.stop_arranging = teacher.stopped.append
    batch = {"input_ids": torch.arange(16).reshape(2, 8)}
    state = SimpleNamespace(batch=batch, device_train_microbatch_size=microbatch)
    return ShortLessons(loader, teacher, asked=asked), state, teacher, loader


@pytest.mark.parametrize(("units", "microbatch"), [(1, 2), (2, 2), (4, 1), (4, "auto")])
def test_a_batch_is_taken_apart_and_a_micro_batch_has_as_many_tokens(units, microbatch):
    short, state, _, _ = made(units, microbatch)
    short.batch_start(state, None)
    assert state.batch["input_ids"].tolist() == torch.arange(16).reshape(-1, 8 // units).tolist()
    larger = microbatch if microbatch == "auto" else microbatch * units
    assert state.device_train_microbatch_size == larger
    short.batch_end(state, None)
    assert state.device_train_microbatch_size == microbatch


def test_a_micro_batch_that_composer_made_smaller_stays_so():
    short, state, _, _ = made(4, 4)
    short.batch_start(state, None)
    state.device_train_microbatch_size = 8  # memory ran out at 16
    short.batch_end(state, None)
    assert state.device_train_microbatch_size == 2
    short.batch_start(state, None)
    state.device_train_microbatch_size = 1
    short.interrupted(state)  # less than a sample
    assert state.device_train_microbatch_size == 1


def test_a_batch_that_was_interrupted_does_not_enlarge_the_next():
    short, state, _, _ = made(2, 3)
    for _ in range(3):
        state.batch = {"input_ids": torch.arange(16).reshape(2, 8)}
        short.batch_start(state, None)
        assert state.device_train_microbatch_size == 6
    other = SimpleNamespace(device_train_microbatch_size=6)
    short.interrupted(other)  # another fit's state
    assert other.device_train_microbatch_size == 6


def test_a_batch_of_another_form_is_an_error_only_if_pieces_were_asked_for(caplog):
    changed = {"input_ids": torch.zeros(2, 8), "note": ["changed", "changed"]}
    short, state, teacher, loader = made(2, 2)
    for _ in range(2):
        state.batch = changed
        short.batch_start(state, None)
        assert state.batch is changed and state.device_train_microbatch_size == 2
        short.batch_end(state, None)
    assert teacher.stopped == ["pieces"]  # agreed on after the first batch
    assert len(caplog.records) == 2
    short, state, _, _ = made(2, 2, asked=True)
    state.batch = changed
    with pytest.raises(ScoreError, match="expected a batch of 2 rows"):
        short.batch_start(state, None)
    loader.epoch = None  # a plain epoch
    made(2, 2)[0].batch_end(state, None)
