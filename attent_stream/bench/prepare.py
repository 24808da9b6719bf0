"""Write the train and held-out corpora of a task, once for each hash of its settings."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from attent_stream.bench.chats import chats_of
from attent_stream.bench.pictures import ARCHIVE, chosen, draw_shapes, mislabelled, read_archive
from attent_stream.bench.settings import ChatData, ImageData, TextData
from attent_stream.bench.texts import documents_of
from attent_stream.bench.weights import write_weights
from attent_stream.corpus import (
    ChatCorpusSettings,
    ImageCorpusSettings,
    Manifest,
    Source,
    TextCorpusSettings,
    write_chat_corpus,
    write_text_corpus,
)
from attent_stream.corpus.images import write_image_corpus
from attent_stream.corpus.parallel import available_cores

DONE = "prepared.json"  # Written last.
# What data is made of where there is no data folder.
STANDARD_LIBRARY, DRAWN, SUMS = "Python's standard library", "drawn shapes", "made-up sums"
WEIGHTS = "weights"
SHARD = "1mb"
TEXT_VERSION = 2  # Of the corpora: a change writes them again.
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]  # Of natural images' RGB in [0, 1].


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The folders of a task's data.

    Args:
        folder: The folder of all data.
        train: Folders of shards by stream.
        held_out: Folders of shards by label.
        target: Folders of shards of the target by stream.
        sources: Folders of shards of the training text by source, where it is one stream.
        weights: The folder of the weights that runs start from; None for random ones.
        samples: Training samples in an epoch.
        source: The source in words.
        tokenizer: The tokenizer's folder; None for images.
        classes: Number of classes; 0 for text.
    """

    folder: Path
    train: dict[str, Path]
    held_out: dict[str, Path]
    samples: int
    source: str
    tokenizer: Path | None = None
    classes: int = 0
    target: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of the content, part of every run's key."""
        return digest([str(self.folder.name), self.source, self.samples])


def digest(value: Any) -> str:
    """Hash plain values to 16 hexadecimal digits."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def prepare(
    settings: TextData | ImageData | ChatData,
    data: Path | None,
    out: Path,
    tokenizer: Path | None = None,
) -> Prepared:
    """Write a task's data, unless it exists.

    Args:
        settings: The data's settings.
        data: Folder of the sources. None: Python's standard library, drawn shapes, or made-up sums.
        out: The bench's folder.
        tokenizer: Folder of a tokenizer for text. None: train one on the training text.

    Raises:
        CorpusError: A source is missing, or a corpus cannot be written.
    """
    kind = {TextData: "text", ImageData: "images", ChatData: "chat"}[type(settings)]
    version = [TEXT_VERSION] if kind == "text" else []
    key = digest(
        [
            *version,
            kind,
            _given(settings),
            data is not None,
            None if tokenizer is None else tokenizer.parts[-3:],
        ]
    )
    folder = out / "data" / key
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            if kind == "text":
                _text(settings, data, folder, Path(work), tokenizer)
            elif kind == "images":
                _images(settings, data, folder, Path(work))
            else:
                _chats(settings, data, folder, Path(work))
        made_of = {"text": STANDARD_LIBRARY, "images": DRAWN, "chat": SUMS}
        source = made_of[kind] if data is None else "the data folder"
        (folder / DONE).write_text(json.dumps({"source": source}), "utf-8")
    return _found(folder, kind)


def _given(settings: TextData | ImageData | ChatData) -> dict[str, Any]:
    """The settings, without those that came later and are off: older corpora keep their names."""
    later = {"one_stream": False, "target": None}
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in later or value != later[name]
    }


def _found(folder: Path, kind: str) -> Prepared:
    train = Manifest.load(folder / "train")
    return Prepared(
        folder=folder,
        train=_folders(folder, "train"),
        held_out=_folders(folder, "held_out"),
        target=_folders(folder, "target"),
        sources=_folders(folder, "sources"),
        samples=train.total("samples", "train"),
        source=json.loads((folder / DONE).read_text("utf-8"))["source"],
        tokenizer=folder / "train" / train.tokenizer if train.tokenizer else None,
        classes=len(train.classes),
        weights=folder / WEIGHTS if kind == "chat" else None,
    )


def _folders(folder: Path, part: str) -> dict[str, Path]:
    """Folders of shards by stream."""
    if not (folder / part).is_dir():
        return {}
    parts = Manifest.load(folder / part).parts
    return {p.stream: folder / part / p.path for p in parts if p.samples}


def _text(
    settings: TextData, data: Path | None, folder: Path, work: Path, tokenizer: Path | None
) -> None:
    for part, streams in vars(documents_of(settings, data)).items():
        if not streams:
            continue
        sources = []
        for name, documents in streams.items():
            path = work / f"{part}-{name}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in documents)
            sources.append(Source(name=name, paths=(str(path),)))
        given = tokenizer if part == "train" else folder / "train" / "tokenizer"
        write_text_corpus(
            TextCorpusSettings(
                sources=tuple(sources),
                out=str(folder / part),
                tokenizer=None if given is None else str(given),
                vocab_size=settings.vocab_size if given is None else None,
                seq_len=settings.seq_len,
                workers=available_cores(),
                shard_size=SHARD,
                progress=False,
            )
        )


def _chats(settings: ChatData, data: Path | None, folder: Path, work: Path) -> None:
    write_weights(settings.weights, folder / WEIGHTS, layers=settings.layers)
    for part, records in zip(("train", "held_out"), chats_of(settings, data), strict=True):
        path = work / f"{part}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
        write_chat_corpus(
            ChatCorpusSettings(
                sources=(Source(name=settings.source, paths=(str(path),)),),
                out=str(folder / part),
                tokenizer=str(folder / WEIGHTS),
                seq_len=settings.seq_len,
                shard_size=SHARD,
                progress=False,
            )
        )


def _images(settings: ImageData, data: Path | None, folder: Path, work: Path) -> None:
    rng = np.random.default_rng(settings.seed)
    if data is None:
        train, held = (
            draw_shapes(n, settings.size, rng) for n in (settings.images, settings.held_out)
        )
    else:
        archive = read_archive(data / ARCHIVE)
        train, held = archive["train"], archive["test"]
    splits = {
        "train": mislabelled(list(chosen(train, settings.images, rng)), settings.wrong, rng),
        "held_out": list(chosen(held, settings.held_out, rng)),
    }
    for split, images in splits.items():
        for number, (label, payload) in enumerate(images):
            path = (
                work
                / split
                / label
                / f"{number:06d}{'.png' if payload[:4] == bytes([137, 80, 78, 71]) else '.jpg'}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(payload)
        write_image_corpus(
            ImageCorpusSettings(
                folder=str(work / split),
                out=str(folder / split),
                seed=settings.seed,
                workers=available_cores(),
                shard_size=SHARD,
                progress=False,
            )
        )
