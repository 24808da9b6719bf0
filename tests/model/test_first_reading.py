"""First guesses of a reading, against what torch's losses take."""

import pytest
import torch

from attent_stream.model.first_reading import first_reading, logits_path, target_path
from attent_stream.model.reading import BINARY, CLASSES, PROBABILITIES, REGRESSION, arrange
from attent_stream.model.traits import Traits


def traits(dense=REGRESSION, shift=False, hugging_face=False):
    names = frozenset({"input_ids"}) if hugging_face else None
    return Traits(shift_labels=shift, forward_args=names, encoder_decoder=False, dense=dense)


def floats(*shape):
    return torch.zeros(shape)


def ints(*shape):
    return torch.zeros(shape, dtype=torch.long)


@pytest.mark.parametrize(
    "known, z, y, target, kind, shape",
    [
        (traits(), floats(4, 5), ints(4), (1,), CLASSES, (4, 5)),
        (traits(), floats(4, 5, 6, 7), ints(4, 6, 7), (1,), CLASSES, (4, 6, 7, 5)),
        (traits(), floats(4, 6, 5), ints(4, 6), ("labels",), CLASSES, (4, 6, 5)),
        (traits(), floats(4, 6, 5), ints(4, 6), (1,), CLASSES, (4, 6, 5)),
        (traits(shift=True), floats(4, 6, 5), ints(4, 6), ("labels",), CLASSES, (4, 6, 5)),
        (traits(PROBABILITIES), floats(4, 5, 6), floats(4, 5, 6), (1,), PROBABILITIES, (4, 6, 5)),
        (traits(BINARY), floats(4, 5), floats(4, 5), ("labels",), BINARY, (4, 5)),
        (traits(BINARY), floats(4, 5), ints(4), (1,), BINARY, (4, 5)),
        (traits(BINARY), floats(4, 1), ints(4), (1,), BINARY, (4,)),
        (traits(BINARY, hugging_face=True), floats(4, 5), ints(4), ("labels",), CLASSES, (4, 5)),
        (traits(PROBABILITIES), floats(4, 1), floats(4), (1,), REGRESSION, (4,)),
        (traits(shift=True), floats(4, 5), ints(4), ("labels",), CLASSES, (4, 5)),
    ],
)
def test_the_guess_fits_the_shapes(known, z, y, target, kind, shape):
    found = first_reading(known, z, y, outputs=(), target=target)
    assert found.kind == kind and found.target == target
    assert found.shift == (known.shift_labels and y.ndim == 2)
    arranged, _ = arrange(found, z, y)
    assert arranged.shape == shape


def test_paths():
    z, loss = floats(4, 5), torch.tensor(1.0)
    outputs = (z, {"logits": z}, (loss, z), (z, loss), [z], {"x": z}, (), None)
    paths = [(), ("logits",), (1,), (0,), (0,), None, None, None]
    assert [logits_path(one) for one in outputs] == paths
    assert target_path({"x": z}) == ("labels",) and target_path((z, z)) == (1,)
