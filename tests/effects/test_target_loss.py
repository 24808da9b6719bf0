"""The target's loss is the model's own, logged by counts, and touches nothing."""

from pathlib import Path

import numpy as np
import pytest
from fits import LossOnly, Watched, fit, make_loader, make_model
from target_corpora import mixed, write_kinds

from attent_stream import AtteNT
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    stream = write_kinds(folder / "stream", mixed(400))
    return stream, write_kinds(folder / "target", "h" * 40, seed=5)


def logged(memory) -> dict[int, float]:
    return {int(stamp.batch): value for stamp, value in memory.data.get("attent/target_loss", [])}


def test_it_is_the_loss_of_what_is_kept_aside(folders):
    stream, target = folders
    model = make_model(dropout=0.2)
    algorithm = Watched(target=target, keep=0.5)
    _, memory, _ = fit(make_loader(stream), [algorithm], model, max_duration="80ba")
    losses = logged(memory)
    # A forward of four samples is 0.5% of 67 batches of as many.
    assert sorted(losses) == [66, 80]
    (batch,) = list(algorithm.fit.effects)[-2]._held
    assert len(batch["input_ids"]) == 4  # a tenth of 40
    model.eval()
    assert losses[80] == pytest.approx(model.loss(model(batch), batch).item(), abs=1e-6)


def test_a_model_without_a_loss_in_eval_mode_goes_on(folders, caplog):
    class Nowhere(LossOnly):
        def forward(self, batch):
            if not self.training:
                raise RuntimeError("not here")
            return super().forward(batch)

    stream, target = folders
    watch, memory, _ = fit(
        make_loader(stream, collate_fn=TokenCollator()), [AtteNT(target=target)], Nowhere()
    )
    assert len(watch.losses) > 20 and not logged(memory)
    assert caplog.text.count("The target's loss is not logged: a forward in eval mode raised") == 1


def test_a_batch_without_a_loss_is_left_out(folders):
    class Sometimes(LossOnly):
        def forward(self, batch):
            outputs = super().forward(batch)
            own = outputs["loss"] * (float("nan") if len(batch["labels"]) == 2 else 1)
            return {"loss": own}

    stream, _ = folders
    # Six samples are kept aside: a batch of four, and one of two, whose loss is not a number.
    target = write_kinds(Path(stream).parent / "sixty", "h" * 60, seed=7)
    loader = make_loader(stream, collate_fn=TokenCollator())
    _, memory, _ = fit(loader, [AtteNT(target=target, arrange="none")], Sometimes())
    assert len(logged(memory)) > 0 and np.isfinite(list(logged(memory).values())).all()
