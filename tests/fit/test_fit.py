"""A fit's state, and what it says of its time."""

import pytest
import torch
from composer import Algorithm, Event
from corpora import write_tokens
from fits import LENGTH, VOCAB, TextLossOnly, fit, make_loader, make_rotary

from attent_stream import AtteNT


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


def test_what_was_given_up_is_given_up_after_a_resume(folder, tmp_path):
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "5ba"}
    whole, _, _ = fit(make_loader(folder), [AtteNT()], TextLossOnly(), max_duration="2ep", **saving)
    path = str(next((tmp_path / "saved").glob("ep*-ba10-rank0.pt")))
    algorithm = AtteNT()
    rest, _, _ = fit(
        make_loader(folder), [algorithm], TextLossOnly(), max_duration="2ep", load_path=path
    )
    assert rest.losses == whole.losses[10:] and algorithm.state_dict()["given_up"] == ["records"]


class Changes(Algorithm):
    """Adds to a batch what pieces cannot have."""

    def match(self, event, state):
        return event == Event.AFTER_DATALOADER

    def apply(self, event, state, logger):
        state.batch = {**state.batch, "note": ["changed"] * len(state.batch["input_ids"])}


def test_pieces_are_given_up_and_stay_so(folder, tmp_path):
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "12ba"}
    fit(make_loader(folder, window=8), [one := AtteNT(), Changes()], make_rotary(), **saving)
    assert one.state_dict()["given_up"] == ["pieces"]
    path = str(next((tmp_path / "saved").glob("ep0-ba12-rank0.pt")))
    # Nothing changes batches any more
    fit(make_loader(folder, window=8), [again := AtteNT()], make_rotary(), load_path=path)
    assert again.state_dict()["given_up"] == ["pieces"]
    assert again.fit.teacher.arrangements.names == ["balance"]


def test_the_state_is_that_of_every_part(folder):
    algorithm = AtteNT(select="hard", keep=0.5, score="loss")
    empty = algorithm.state_dict()
    assert empty["version"] == 3 and set(empty["counts"].values()) == {0}
    _, _, trainer = fit(make_loader(folder), [algorithm])
    state = algorithm.state_dict()
    assert set(state) == set(empty)
    assert state["told"] == int(trainer.state.dataloader_len)
    assert state["given_up"] == [] and state["gain"] is None
    assert state["random"].dtype == torch.uint8 and len(state["random"]) == 1
    assert state["counts"]["lessons"] + state["counts"]["dropped"] == 96
    again = AtteNT(select="hard", keep=0.5, score="loss")
    again.load_state_dict(state)
    assert again.state_dict() is state  # until a fit goes on from it


def test_a_state_of_another_version_is_refused():
    with pytest.raises(ValueError, match="expected AtteNT's state of version 3, got version 2"):
        AtteNT().load_state_dict({"version": 2})


def test_the_time_that_teaching_takes_is_logged_for_each_batch(folder):
    watch, memory, _ = fit(make_loader(folder), [AtteNT(select="hard", keep=0.5)])
    seconds, shares = (memory.data[f"attent/{name}"] for name in ("seconds", "share_of_step"))
    assert len(seconds) == len(shares) == len(watch.losses)
    assert all(value >= 0 for _, value in seconds) and sum(value for _, value in seconds) > 0
    assert all(0 <= share < 1 for _, share in shares)
