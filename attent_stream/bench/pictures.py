"""Read, choose and mislabel the images of an image task, or draw shapes."""

import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attent_stream.corpus.errors import require

ARCHIVE = "cifar10_jpeg.tar.zst"
SHAPES = ("disc", "square", "cross", "stripes")


def read_archive(path: Path) -> dict[str, dict[str, list[bytes]]]:
    """Read files by split and class from a .tar.zst of ``SPLIT/CLASS/*``, in any folder."""
    import zstandard

    require(path.is_file(), f"the data folder has no {path.name}")
    found: dict[str, dict[str, list[bytes]]] = defaultdict(lambda: defaultdict(list))
    with (
        path.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as raw,
        tarfile.open(fileobj=raw, mode="r|") as archive,
    ):
        for member in archive:
            if member.isfile():
                split, label = Path(member.name).parts[-3:-1]
                found[split][label].append(archive.extractfile(member).read())
    return found


def draw_shapes(count: int, size: int, rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Draw PNG files of noisy shapes by class, to test the bench without data."""
    from PIL import Image

    made: dict[str, list[bytes]] = defaultdict(list)
    y, x = np.mgrid[:size, :size]
    for i in range(count):
        shape = SHAPES[i % len(SHAPES)]
        cy, cx, r = (
            rng.uniform(0.3, 0.7) * size,
            rng.uniform(0.3, 0.7) * size,
            rng.uniform(0.15, 0.3) * size,
        )
        masks = {
            "disc": (y - cy) ** 2 + (x - cx) ** 2 < r**2,
            "square": np.maximum(abs(y - cy), abs(x - cx)) < r,
            "cross": np.minimum(abs(y - cy), abs(x - cx)) < r / 3,
            "stripes": (y + x) // max(2, int(r / 2)) % 2 == 0,
        }
        pixels = rng.normal(96, 60, (size, size, 3)) + 80 * masks[shape][..., None] * rng.uniform(
            0.3, 1
        )
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
        made[shape].append(buffer.getvalue())
    return made


def chosen(
    classes: dict[str, list[bytes]], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """Yield (class, file) of about ``count`` files, as many of each class, drawn at random."""
    each = -(-count // len(classes))
    for label in sorted(classes):
        files = classes[label]
        for i in np.sort(rng.permutation(len(files))[:each]):
            yield label, files[i]


def mislabelled(
    images: list[tuple[str, bytes]], share: float, rng: np.random.Generator
) -> list[tuple[str, bytes]]:
    """Give a random share of the images another class, uniformly drawn."""
    labels = sorted({label for label, _ in images})
    wrong = set(rng.permutation(len(images))[: round(share * len(images))].tolist())
    out = []
    for i, (label, data) in enumerate(images):
        if i in wrong:
            others = [name for name in labels if name != label]
            label = others[rng.integers(len(others))]
        out.append((label, data))
    return out
