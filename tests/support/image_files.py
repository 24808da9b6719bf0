"""Image files in a folder a class."""

import io

import numpy as np
from PIL import Image


def image_bytes(seed, kind="JPEG", size=(12, 10)):
    pixels = np.random.default_rng([seed]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def fill(folder, classes, count, seed=0):
    """Files of `count` images a class; returns {(class, bytes)}."""
    written = set()
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            kind, ending = [("JPEG", "jpg"), ("PNG", "png"), ("JPEG", "JPEG")][i % 3]
            data = image_bytes(1000 * seed + 100 * label + i, kind)
            (folder / name / f"{i}.{ending}").write_bytes(data)
            written.add((name, data))
    return written
