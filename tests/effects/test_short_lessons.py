"""Lessons in pieces are taken apart, and a micro-batch has as many tokens as ever."""

import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader

from attent_stream import AtteNT


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


def test_a_batch_that_is_changed_before_it_is_cut_does_not_end_the_run(folder, caplog):
    from composer import Algorithm, Event

    class Changes(Algorithm):
        def match(self, event, state):
            return event == Event.AFTER_DATALOADER

        def apply(self, event, state, logger):
            state.batch = {**state.batch, "note": ["changed"] * len(state.batch["input_ids"])}

    watch, _, trainer = fit(make_loader(folder, window=8), [AtteNT(), Changes()])
    assert int(trainer.state.timestamp.batch) == 24 and len(watch.losses) == 24
    assert sum("not cut into pieces" in record.getMessage() for record in caplog.records) == 1
