"""Write class folders of JPEG and PNG files as MDS shards, with the files' bytes unchanged."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import Manifest, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, ShardWriter, open_output
from attent_stream.corpus.parallel import ordered_map
from attent_stream.corpus.settings import REST, SHARD_HEAD, ImageCorpusSettings, mds_settings
from attent_stream.corpus.tally import Tally, progress_bar

SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = (REST, "test", "val", "valid", "validation")
STREAM = "images"
COLUMNS = {"image": "bytes", "label": "int"}


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image's path, class name and size in bytes."""

    path: str
    label: str
    size: int


def find_images(folder: str) -> dict[str, tuple[ImageFile, ...]]:
    """Return the images of each split, sorted by path; without split folders all are 'train'.

    Raises:
        CorpusError: The folder or its images are missing.
    """
    require(os.path.isdir(folder), f"no such folder: {folder}")
    inner = _folders(folder)
    if inner and all(name in SPLITS for name in inner):
        found = {split: _classes(Path(folder, split)) for split in SPLITS if split in inner}
    else:
        found = {REST: _classes(Path(folder))}
    for split, images in found.items():
        where = folder if len(found) == 1 and split not in inner else os.path.join(folder, split)
        require(bool(images), f"no CLASS/*{', *'.join(SUFFIXES)} under {where}")
    return found


def _folders(folder: str | Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _classes(folder: Path) -> tuple[ImageFile, ...]:
    return tuple(
        ImageFile(path=str(path), label=label, size=path.stat().st_size)
        for label in _folders(folder)
        for path in sorted((folder / label).iterdir())
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def check_image(path: str) -> tuple[bytes, str]:
    """Decode an image fully, and return its bytes and '' or the reason why it is bad."""
    from PIL import Image, UnidentifiedImageError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return b"", f"unreadable file ({error.strerror})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                image.load()
    except UnidentifiedImageError:
        return b"", "not a JPEG or PNG"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return b"", "too many pixels"
    except (OSError, SyntaxError, ValueError, EOFError):  # PIL's errors for broken data.
        return b"", "corrupt image"
    return data, ""


def write_image_corpus(settings: ImageCorpusSettings) -> Manifest:
    """Write an image corpus and return its manifest.

    Layout: `out`/SPLIT/{shard.*.mds, index.json} and `out`/manifest.json. Column `image` is the
    file's bytes, and `label` (int) is the class's index in the manifest's `classes`.

    Raises:
        CorpusError: The settings or the data have a mistake; no corpus is left behind.
    """
    found = find_images(settings.folder)
    classes = tuple(sorted({image.label for images in found.values() for image in images}))
    total = sum(map(len, found.values()))
    parts, bad = [], []
    with open_output(settings.out, settings.overwrite) as output:
        with (
            ordered_map(check_image, settings.workers) as run,
            progress_bar(total, "writing", settings.progress, unit="image") as bar,
        ):
            for number, (split, images) in enumerate(found.items()):
                order = np.random.default_rng([settings.seed, number]).permutation(len(images))
                tally = Tally(f"{STREAM}/{split}")
                mixed = [images[i] for i in order]
                parts.append(_write_split(output, settings, tally, run, mixed, classes, bar))
                bad += tally.records()
        manifest = Manifest(
            kind="images",
            parts=tuple(parts),
            bad=tuple(bad),
            classes=classes,
            settings={
                "folder": settings.folder,
                "seed": settings.seed,
                **mds_settings(settings.shard_size, settings.compression, settings.hashes),
            },
        )
        output.publish(manifest)
    return manifest


def _write_split(
    output: LocalOutput | RemoteOutput,
    settings: ImageCorpusSettings,
    tally: Tally,
    run: Callable,
    images: Sequence[ImageFile],
    classes: Sequence[str],
    bar: tqdm,
) -> Part:
    split = tally.stream.partition("/")[2]
    labels = {name: label for label, name in enumerate(classes)}
    mds = mds_settings(settings.shard_size, settings.compression, settings.hashes)
    # MDSWriter would write an empty shard before a sample larger than a shard.
    mds["size_limit"] = max(mds["size_limit"], max(image.size for image in images) + SHARD_HEAD)
    shards = ShardWriter(output, split, COLUMNS, **mds)
    for image, (data, reason) in run(images, lambda image: image.path):
        if reason:
            tally.add_bad(reason, image.path)
        else:
            tally.good += 1
            shards.write({"image": data, "label": labels[image.label]})
        bar.update(1)
    tally.check()
    shards.finish()
    return Part(
        stream=STREAM, split=split, path=split, documents=tally.good, samples=shards.samples
    )
