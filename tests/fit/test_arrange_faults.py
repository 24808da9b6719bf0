"""Whether samples can be arranged is seen before training."""

import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit, make_loader, make_rotary

from attent_stream import AtteNT
from attent_stream.arrange.arrangements import Arrangements
from attent_stream.corpus.batches import TokenCollator
from attent_stream.fit.arrange_faults import arrange_faults


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


class Fails(TokenCollator):
    """Adds what lessons in pieces cannot have."""

    def __call__(self, samples):
        return {**super().__call__(samples), "where": [str(i) for i in range(len(samples))]}


def test_packed_text_that_cannot_be_cut_is_trained_on_whole(folder, caplog):
    plain, _, _ = fit(make_loader(folder, collate_fn=Fails()), [])
    taught, _, _ = fit(make_loader(folder, collate_fn=Fails()), [AtteNT()], make_rotary())
    # Balanced, but whole and each once
    assert sorted(sum(taught.tokens, [])) == sorted(sum(plain.tokens, []))
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("attent")]
    assert told.startswith("pieces is not used by default here")
    with pytest.raises(
        ValueError, match="arrange.pieces cuts every value of a batch: expected where"
    ):
        fit(make_loader(folder, collate_fn=Fails()), [AtteNT(arrange={"pieces": 0.5})])
    caplog.clear()
    # Asks for one of the two only
    fit(make_loader(folder, collate_fn=Fails()), [AtteNT(arrange={"balance": "tokens"})])
    assert not [record for record in caplog.records if record.name.startswith("attent")]


def test_the_reason_is_told_by_name(folder):
    loader = make_loader(folder, collate_fn=Fails())
    arrangements = Arrangements.parse({"pieces": 0.5, "balance": "tokens"})
    faults = arrange_faults(loader, arrangements, set())
    assert list(faults) == ["pieces"] and "expected where of shape (8, 24)" in faults["pieces"]
    assert arrange_faults(loader, arrangements.without("pieces"), set()) == {}
    assert arrange_faults(make_loader(folder), arrangements, set()) == {}


class Picky(TokenCollator):
    """Takes whole batches only."""

    def __call__(self, samples):
        assert len(samples) == 4, "a batch has four samples"
        return super().__call__(samples)


def test_few_samples_that_cannot_be_collated_are_left_to_the_workers_if_it_was_asked_for(folder):
    loader = make_loader(folder, collate_fn=Picky())
    arrangements = Arrangements.parse({"pieces": 0.5, "balance": "tokens"})
    faults = arrange_faults(loader, arrangements, {"pieces"})
    assert list(faults) == ["balance"]
    assert faults["balance"].startswith("AssertionError: a batch has four samples")
    assert arrange_faults(loader, Arrangements(), set()) == {}
