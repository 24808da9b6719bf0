"""Text and images for ``bench_fidelity.py``, real or generated."""

import io
import json
import random
import sysconfig
import tarfile
from pathlib import Path

import numpy as np
import torch

TEXT_BYTES = 24 << 20  # Read from each split of a corpus.


def token_rows(
    data: Path | None,
    *,
    vocab_size: int,
    length: int,
    rows: int,
    held_out: int,
    limit: int = TEXT_BYTES,
):
    """Return training and held-out rows of packed tokens.

    Args:
        data: Folder with ``NAME.train.jsonl.zst`` and ``NAME.valid.jsonl.zst`` files of ``{"text":
            ...}`` lines. None: Python's standard library.
        vocab_size: Size of the byte-level BPE tokenizer, which is trained on the texts.
        length: Tokens in a row.
        rows: The most training rows.
        held_out: The most held-out rows.
        limit: Bytes of text.

    Returns:
        Int64 tensors (rows, length) and (held_out, length), and the source in words.
    """
    from tokenizers import ByteLevelBPETokenizer

    train, valid, name = _texts(data, limit)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        train[:: max(1, len(train) // 2000)], vocab_size=vocab_size, show_progress=False
    )
    return (
        *(
            _packed(tokenizer, texts, length, count)
            for texts, count in ((train, rows), (valid, held_out))
        ),
        name,
    )


def _packed(tokenizer, texts: list[str], length: int, rows: int) -> torch.Tensor:
    ids: list[int] = []
    for start in range(0, len(texts), 64):
        for encoding in tokenizer.encode_batch(texts[start : start + 64]):
            ids += [*encoding.ids, 0]
        if len(ids) >= rows * length:
            break
    rows = min(rows, len(ids) // length)
    return torch.tensor(ids[: rows * length]).view(rows, length)


def _texts(data: Path | None, limit: int) -> tuple[list[str], list[str], str]:
    generator = random.Random(0)
    if data is None:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
            Path(sysconfig.get_path("stdlib")).glob("[a-z]*/*.py")
        )
        texts = [
            file.read_text(errors="ignore") for file in files if "site-packages" not in file.parts
        ]
        generator.shuffle(texts)
        texts = texts[: max(10, len(texts) * limit // sum(map(len, texts)))]
        held_out = len(texts) // 5
        return texts[held_out:], texts[:held_out], "Python's standard library"
    parts: dict[str, list[str]] = {"train": [], "valid": []}
    names = sorted({file.name.split(".")[0] for file in data.glob("*.train.jsonl.zst")})
    for split, texts in parts.items():
        for name in names:
            texts += read_texts(data / f"{name}.{split}.jsonl.zst", limit // len(names))
        generator.shuffle(texts)
    return parts["train"], parts["valid"], " + ".join(names)


def read_texts(file: Path, limit: int) -> list[str]:
    """Read texts of a ``.jsonl.zst`` file, up to some bytes of lines."""
    import zstandard

    texts, size = [], 0
    with file.open("rb") as raw:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8"):
            texts.append(json.loads(line)["text"])
            size += len(line)
            if size > limit:
                break
    return texts


def image_sets(data: Path | None, *, images: int, held_out: int, seed: int = 0):
    """Return training and held-out images with their classes.

    Args:
        data: Folder with ``cifar10_jpeg.tar.zst``. None: drawn gratings with noise.
        images: Number of training images.
        held_out: Number of held-out images.
        seed: Seed of all draws.

    Returns:
        ``(pixels, classes)`` of each, float32 (N, 3, 32, 32) of about unit variance and int64 (N,),
        and the source in words.
    """
    if data is None or not (data / "cifar10_jpeg.tar.zst").exists():
        return (
            _gratings(images, seed),
            _gratings(held_out, seed + 1),
            "drawn gratings of 10 directions",
        )
    import zstandard
    from PIL import Image

    found: dict[str, list] = {"train": [], "test": []}
    wanted = {"train": images, "test": held_out}
    classes: dict[str, int] = {}
    packed = zstandard.ZstdDecompressor().stream_reader(
        (data / "cifar10_jpeg.tar.zst").open("rb"), closefd=True
    )
    with packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            parts = member.name.split("/")
            if member.isfile() and len(parts) >= 3:
                split, name = parts[-3:-1]
                found[split].append(
                    (archive.extractfile(member).read(), classes.setdefault(name, len(classes)))
                )
    sets = []
    for split, files in found.items():
        random.Random(seed).shuffle(files)
        files = files[: wanted[split]]
        pixels = np.stack(
            [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file, _ in files]
        )
        pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 64 - 2
        sets.append((pixels, torch.tensor([label for _, label in files])))
    return (*sets, "CIFAR-10")


def _gratings(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 10, count)
    y, x = np.mgrid[:32, :32]
    angle = classes[:, None, None] * np.pi / 10
    waves = np.sin(
        (x * np.cos(angle) + y * np.sin(angle)) * 0.8 + generator.uniform(0, 6.3, (count, 1, 1))
    )
    noise = generator.normal(size=(count, 3, 32, 32)) * generator.uniform(
        0.1, 3.0, (count, 1, 1, 1)
    )
    return torch.from_numpy((waves[:, None] + noise).astype(np.float32)), torch.from_numpy(classes)
