"""What the teacher decides, by what is remembered."""

import numpy as np
import pytest
from loaders import ids_data
from taught import make_loader, make_teacher, run_epochs

from attent_stream.window.choice import Window


def test_remembered_alone(tmp_path):
    """Nothing is ever forwarded to score it; a window is chosen by what training has said of it,
    and the unknown is trained on.
    """
    data = ids_data(tmp_path, 320, window=8, gap=2)
    loader = make_loader(data, {}, {"keep": 0.5, "interval": "9ep", "ledger": 320, "enough": 0.5})
    loader.teacher.scoring = False
    first = run_epochs(loader, 1)
    assert {by for _, _, by, _ in first["choices"]} == {"all"} and not first["scored"]
    ids = np.arange(320)
    scores = np.where(ids % 10 == 3, np.nan, ids.astype(float))  # a tenth is unknown
    loader.teacher.remember(ids, scores, 0.0)
    second = run_epochs(loader, 1)
    assert {by for _, _, by, _ in second["choices"]} == {"remembered"} and not second["scored"]
    trained = [i for batch in second["lessons"] for i in batch]
    assert set(ids[ids % 10 == 3]) <= set(trained) and len(trained) == 160
    loader.teacher.remember(ids, np.where(ids % 3 == 0, 1.0, np.nan), 1.0)  # most are unknown
    assert {by for _, _, by, _ in run_epochs(loader, 1)["choices"]} == {"all"}


@pytest.mark.parametrize("ledger", [None, 8])
def test_a_large_window_is_balanced(ledger):
    """Also where scores are remembered."""
    teacher = make_teacher(keep=1, balance="ids", pieces=0.5, ledger=ledger)
    ids = np.broadcast_to(np.int64(0), (8, 8192))
    window = Window(epoch=0, index=1, ids=ids, lanes=ids, unit=8192, share=0, until=1)
    decision = teacher.decide(window, 0)
    assert decision.units == 2 and decision.features


def test_settings_out_of_range():
    for keep in (0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="greater than 0 and at most 1"):
            make_teacher(keep=keep)
    with pytest.raises(ValueError, match="select has no 'hardest', did you mean 'hard'"):
        make_teacher(select="hardest")
    with pytest.raises(ValueError, match="temperature"):
        make_teacher(temperature=0)
