"""The collators, against straightforward float64 and per-sample versions."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from attent_stream.corpus.batches import ImageCollator, TokenCollator

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def png(seed, size=(16, 16), mode="RGB"):
    rng = np.random.default_rng([seed])
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(
        mode
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_tokens(dtype):
    rows = np.random.default_rng(0).integers(0, 60_000, (5, 7)).astype(dtype)
    for row in rows:
        row.setflags(write=False)  # as Streaming gives them
    batch = pickle.loads(pickle.dumps(TokenCollator()))([{"tokens": row} for row in rows])
    assert {
        key: (value.dtype, tuple(value.shape)) for key, value in batch.items()
    } == dict.fromkeys(("input_ids", "labels", "attention_mask"), (torch.int64, (5, 7)))
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == rows.tolist()
    assert (batch["attention_mask"] == 1).all()
    batch["labels"][0, 0] = -100
    assert batch["input_ids"][0, 0] == int(rows[0, 0])


def test_padded_tokens_are_masked():
    batch = TokenCollator(pad_id=9)([{"tokens": np.array([1, 2, 9], np.uint16)}])
    assert batch["input_ids"].tolist() == [[1, 2, 9]]
    assert batch["labels"].tolist() == [[1, 2, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0]]


def test_tokens_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="same shape"):
        TokenCollator()([{"tokens": np.arange(3)}, {"tokens": np.arange(4)}])


def test_images_are_normalised():
    samples = [{"image": png(i), "label": i} for i in range(3)]
    samples.append({"image": png(3, mode="L"), "label": 7})
    collator = pickle.loads(pickle.dumps(ImageCollator(size=16, mean=MEAN, std=STD)))
    inputs, targets = collator(samples)
    assert (
        inputs.dtype == torch.float32 and inputs.shape == (4, 3, 16, 16) and inputs.is_contiguous()
    )
    assert targets.dtype == torch.int64 and targets.tolist() == [0, 1, 2, 7]
    expected = np.stack([(pixels_of(s["image"]) / 255 - MEAN) / STD for s in samples]).transpose(
        0, 3, 1, 2
    )
    np.testing.assert_allclose(inputs.numpy(), expected, atol=1e-5)


def test_images_are_resized():
    inputs, _ = ImageCollator(size=8, mean=(0, 0, 0), std=(1, 1, 1))(
        [{"image": png(0, (20, 12)), "label": 0}]
    )
    image = Image.open(io.BytesIO(png(0, (20, 12)))).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        inputs[0].numpy().transpose(1, 2, 0), np.asarray(image) / 255.0, atol=1e-6
    )


def test_augmented_images_are_crops_or_their_mirror():
    collator = ImageCollator(size=16, mean=(0, 0, 0), std=(1, 1, 1), augment=True, seed=5)
    samples = [{"image": png(i), "label": 0} for i in range(40)]
    inputs = collator(samples)[0].numpy().transpose(0, 2, 3, 1)
    seen = set()
    for sample, got in zip(samples, inputs, strict=True):
        padded = np.pad(pixels_of(sample["image"]) / 255, ((4, 4), (4, 4), (0, 0)))
        views = {(t, l): padded[t : t + 16, l : l + 16] for t in range(9) for l in range(9)}  # noqa: E741
        found = [
            (at, flip)
            for at, view in views.items()
            for flip in (1, -1)
            if np.allclose(got, view[:, ::flip], atol=1e-6)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 25 and {flip for _, flip in seen} == {1, -1}


def test_augmentation_depends_on_seed_and_image_alone():
    samples = [{"image": png(i), "label": 0} for i in range(6)]
    collator = ImageCollator(size=16, mean=MEAN, std=STD, augment=True, seed=5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    whole = collator(samples)[0]
    assert torch.equal(collator(samples[::-1])[0].flip(0), whole)
    assert torch.equal(torch.cat([collator([s])[0] for s in samples]), whole)
    other = ImageCollator(size=16, mean=MEAN, std=STD, augment=True, seed=6)
    assert not torch.equal(other(samples)[0], whole)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_image_settings_are_checked():
    for bad in ({"size": 0}, {"mean": (0.5,)}, {"std": (1, 1, 0)}):
        with pytest.raises(ValueError, match="must be positive|need 3 values"):
            ImageCollator(**{"size": 8, "mean": MEAN, "std": STD, **bad})
