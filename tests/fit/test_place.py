"""Where the data set goes on when a fit starts. Oracles: a run that was never stopped or looked at;
what a checkpoint says.
"""

from types import SimpleNamespace

import pytest
import torch
from composer import Timestamp, Trainer
from corpora import write_tokens
from fits import LENGTH, VOCAB, Watch, fit, make_loader, make_model

from attent_stream import AtteNT
from attent_stream.fit.place import find_place


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_look_at_a_loaded_checkpoint_changes_nothing(folder, tmp_path, caplog, workers):
    taught = {"select": "hard", "keep": 0.5, "score": "loss"}
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "5ba"}
    whole, _, _ = fit(
        make_loader(folder, num_workers=workers), [AtteNT(**taught)], max_duration="2ep", **saving
    )
    path = str(next((tmp_path / "saved").glob("ep*-ba10-rank0.pt")))
    model, watch, loader = make_model(), Watch(), make_loader(folder, num_workers=workers)
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=[AtteNT(**taught)],
        callbacks=[watch],
        load_path=path,
        progress_bar=False,
    )
    for _ in range(2):
        next(iter(loader))
    trainer.fit()
    trainer.close()
    assert watch.tokens == whole.tokens[10:] and watch.losses == whole.losses[10:]
    assert "says nothing of the data" not in caplog.text


def test_a_look_before_a_new_run_changes_nothing(folder):
    expected, _, _ = fit(make_loader(folder), [AtteNT(select="hard", keep=0.5)])
    loader = make_loader(folder)
    for _ in range(2):
        next(iter(loader))
    found, _, _ = fit(loader, [AtteNT(select="hard", keep=0.5)])
    assert found.tokens == expected.tokens


def test_a_look_between_fits_changes_nothing(folder):
    def lessons(look, durations):
        loader, algorithm, watch, model = (
            make_loader(folder),
            AtteNT(select="hard", keep=0.5),
            Watch(),
            make_model(),
        )
        trainer = Trainer(
            model=model,
            train_dataloader=loader,
            optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
            max_duration=durations[0],
            algorithms=[algorithm],
            callbacks=[watch],
            progress_bar=False,
        )
        trainer.fit()
        for duration in durations[1:]:
            if look:
                next(iter(loader))
            trainer.fit(duration=duration)
        trainer.close()
        return watch.tokens

    for durations in (("1ep", "1ep"), ("5ba", "1ep"), ("5ba", "3ba", "9ba")):
        assert lessons(True, durations) == lessons(False, durations)


def test_a_checkpoint_without_the_data_sets_state_is_gone_on_from_by_its_samples(folder, caplog):
    whole = make_loader(folder)
    epochs = [[batch["input_ids"].tolist() for batch in whole] for _ in range(2)]
    loader, resumed = make_loader(folder), {}
    time = Timestamp(epoch=1, batch=30, batch_in_epoch=6, sample=120, sample_in_epoch=24)
    state = SimpleNamespace(timestamp=time, dataset_resumption=resumed)
    find_place(state, loader, None, None)
    assert (
        "no state of the data set: training goes on after its 24 samples of epoch 1" in caplog.text
    )
    assert resumed == {"train": True}  # Composer skips nothing
    assert [batch["input_ids"].tolist() for batch in loader] == epochs[1][6:]


def test_a_new_run_starts_at_the_epoch_before_anybody_looked(folder):
    loader, resumed = make_loader(folder), {}
    first = next(iter(loader))["input_ids"].tolist()
    next(iter(loader))
    find_place(
        SimpleNamespace(timestamp=Timestamp(), dataset_resumption=resumed), loader, None, None
    )
    assert resumed == {} and loader.dataset.coming_epoch == 0
    assert next(iter(loader))["input_ids"].tolist() == first
