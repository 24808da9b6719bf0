"""The documents of a text task: what is trained on, what is held out, and what is the target."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attent_stream.bench.documents import clean, first, read_jsonl, spoilt
from attent_stream.bench.settings import TextData
from attent_stream.corpus.errors import require
from attent_stream.demo.corpus import STREAM, python_sources, standard_library

HELD_OUT_CHARACTERS = 2000  # Of a document, so that few held-out samples come from many documents.
NOISE = "noise"  # the source of what was planted
ALL = "all"  # the stream of all sources
Texts = dict[str, Iterable[str]]


@dataclass(kw_only=True)
class Documents:
    """The documents of a text task by stream.

    Args:
        train: Trained on.
        held_out: Evaluated on.
        target: Of the arms' target.
        sources: The documents of ``train`` by source, where ``train`` is one stream.
    """

    train: Texts
    held_out: Texts
    target: Texts = field(default_factory=dict)
    sources: Texts = field(default_factory=dict)


def documents_of(settings: TextData, data: Path | None) -> Documents:
    """Draw a task's documents.

    Args:
        settings: The task's text.
        data: Folder of the sources. None: Python's standard library.

    Raises:
        CorpusError: A source is missing, or too small.
    """
    rng = np.random.default_rng(settings.seed)
    if data is None:
        require(
            settings.target is None and not settings.one_stream,
            "a task with a target needs a data folder: give --data FOLDER",
        )
        return _standard_library(settings, rng)
    found = Documents(train={}, held_out={})
    for name, megabytes in settings.streams.items():
        wanted = 0
        if settings.target is not None and name in settings.target.streams:
            wanted = settings.target.documents
        drawn = read_jsonl(data / f"{name}.train.jsonl.zst", megabytes, rng, more=wanted)
        if wanted:
            drawn, target = drawn[:-wanted], drawn[-wanted:]
            found.target[name] = [text[:HELD_OUT_CHARACTERS] for text in target]
        found.train[name] = drawn
        held = data / f"{name}.valid.jsonl.zst"
        found.held_out[name] = read_jsonl(held, settings.held_out, rng, HELD_OUT_CHARACTERS)
    if settings.clean:
        found.train = {name: clean(texts) for name, texts in found.train.items()}
        found.held_out = {name: clean(texts) for name, texts in found.held_out.items()}
    if settings.one_stream:
        return _joined(found, settings, rng)
    found.train = {
        name: (text for text, _ in _marked(texts, settings, rng))
        for name, texts in found.train.items()
    }
    return found


def _marked(
    texts: Iterable[str], settings: TextData, rng: np.random.Generator
) -> Iterable[tuple[str, bool]]:
    """Texts with the noise that the settings ask for, and whether each was planted."""
    if settings.noise:
        return spoilt(texts, settings.noise, rng)
    return ((text, False) for text in texts)


def _joined(found: Documents, settings: TextData, rng: np.random.Generator) -> Documents:
    """Shuffle all documents of ``train`` into one stream; the sources are kept apart beside it."""
    named = []
    for name, texts in found.train.items():
        named += [
            (NOISE if planted else name, text) for text, planted in _marked(texts, settings, rng)
        ]
    named = [named[i] for i in rng.permutation(len(named))]
    sources: dict[str, list[str]] = {}
    for name, text in named:
        sources.setdefault(name, []).append(text)
    found.train, found.sources = {ALL: [text for _, text in named]}, dict(sources)
    return found


def _standard_library(settings: TextData, rng: np.random.Generator) -> Documents:
    files = [path.read_text("utf-8", "ignore") for path in python_sources(standard_library())]
    order = rng.permutation(len(files))
    held = len(files) // 20
    train: Iterable[str] = first([files[i] for i in order[held:]], sum(settings.streams.values()))
    held_out: Iterable[str] = first([files[i] for i in order[:held]], settings.held_out)
    if settings.clean:
        train, held_out = clean(train), clean(held_out)
    noisy = (text for text, _ in _marked(train, settings, rng))
    return Documents(train={STREAM: noisy}, held_out={STREAM: held_out})
