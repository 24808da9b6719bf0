"""Composer's time as AtteNT's. Oracles: the length of a data set in each unit, counts by hand."""

from types import SimpleNamespace

import pytest
from composer import Time, Timestamp
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB
from streaming import Stream

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.span import Clock, Span
from attent_stream.corpus.batches import TokenCollator
from attent_stream.fit.clock import packed_length, passes, single_pass, state_clock


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


def test_a_run_is_one_pass_in_whichever_unit_it_is_told(folder):
    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=4, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())
    one = {"ep": 1, "ba": 24, "sp": 96, "tok": 96 * LENGTH}
    for unit, length in one.items():
        assert single_pass(passes(Span(value=length, unit=unit), loader), loader), unit
        assert not single_pass(passes(Span(value=length + 1, unit=unit), loader), loader), unit
    assert not single_pass(passes(None, loader), loader)


def test_a_stream_that_is_repeated_is_no_single_pass(folder, tmp_path):
    other = write_tokens(tmp_path / "other", 32, length=LENGTH, vocab=VOCAB, seed=2)
    streams = [Stream(local=folder), Stream(local=other, repeat=2)]
    dataset = TeachingDataset(streams=streams, batch_size=BATCH, window=4, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())
    for unit, length in {"ep": 1, "ba": 40, "sp": 160, "tok": 160 * LENGTH}.items():
        assert not single_pass(passes(Span(value=length, unit=unit), loader), loader), unit


def loader_of(folder, **collate) -> TeachingDataLoader:
    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=4, shuffle=True)
    return TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator(**collate))


@pytest.mark.parametrize(
    ("total", "share"), [("4ep", (1 + 0.5) / 4), ("60ba", 15 / 60), ("1000sp", 52.5 / 1000)]
)
def test_what_lies_ahead_is_counted_as_the_mean_so_far(folder, total, share):
    loader = loader_of(folder)
    loader.dataset.next_epoch = 3  # two epochs were looked at before this run
    time = Timestamp(epoch=1, batch=10, sample=35, token=840)
    state = SimpleNamespace(timestamp=time, max_duration=Time.from_timestring(total))
    read = state_clock(state, loader)
    # 3.5 samples and 84 tokens a batch
    expected = Clock(ep=1.5, ba=15, sp=35 + 5 * 3.5, tok=840 + 5 * 84, dur=share)
    assert read(5, 3, 0.5) == expected


def test_before_the_first_batch_a_batch_has_its_row(folder):
    state = SimpleNamespace(timestamp=Timestamp(), max_duration=Time.from_timestring("10ba"))
    found = state_clock(state, loader_of(folder))(3, 0, 0.0)
    assert found == Clock(ep=0, ba=3, sp=3 * BATCH, tok=0, dur=0.3)


def test_the_length_of_samples_is_known_where_text_is_packed(folder):
    assert packed_length(loader_of(folder)) == LENGTH
    padded = loader_of(folder, pad_id=VOCAB)
    assert packed_length(padded) is None
    assert not single_pass(passes(Span(value=96 * LENGTH, unit="tok"), padded), padded)
    assert single_pass(passes(Span(value=96, unit="sp"), padded), padded)
