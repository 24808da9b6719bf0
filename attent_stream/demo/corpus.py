"""The demo's corpus: the Python standard library's own sources, which every machine has."""

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from attent_stream.corpus import (
    CorpusError,
    Manifest,
    Source,
    TextCorpusSettings,
    write_text_corpus,
)
from attent_stream.corpus.manifest import MANIFEST
from attent_stream.corpus.parallel import available_cores

STREAM = "stdlib"
HELD_OUT = "heldout"
# Test suites, installed packages, and files that are tables rather than programs.
SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
    }
)
SKIPPED_PREFIX = "_sysconfigdata"


def python_sources(root: Path) -> list[Path]:
    """The .py files under a folder in sorted order, without what is skipped.

    Raises:
        CorpusError: There is none.
    """
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [
            Path(parent, name)
            for name in names
            if name.endswith(".py") and not name.startswith(SKIPPED_PREFIX)
        ]
    if not found:
        raise CorpusError(
            f"this Python comes without its library's sources: no .py file under {root}"
        )
    return sorted(found)


def standard_library() -> Path:
    """Where this Python keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def make_corpus(
    files: Sequence[Path], out: Path, *, vocab_size: int, seq_len: int, held_out: float
) -> tuple[Manifest, bool]:
    """The corpus at ``out``, written unless one of the same files and settings is there already.

    Args:
        files: A document each.
        out: The folder.
        vocab_size: Of the BPE tokenizer that is trained.
        seq_len: Tokens a sample.
        held_out: Share of the files held out, chosen by a hash of their text.

    Returns:
        The manifest, and whether it was there already.

    Raises:
        CorpusError: What the corpus tool refuses.
    """
    settings = TextCorpusSettings(
        sources=(Source(name=STREAM, paths=tuple(map(str, files))),),
        out=str(out),
        vocab_size=vocab_size,
        seq_len=seq_len,
        splits=((HELD_OUT, held_out),),
        extensions=("py",),
        workers=available_cores(),
        shard_size="1mb",
        overwrite=True,
    )
    for left_over in out.parent.glob(f"{out.name}.partial-*"):
        shutil.rmtree(left_over)  # of a run that was killed while it wrote
    there = _existing(out)
    if there is not None and there.seq_len == seq_len and there.settings == settings.recorded():
        return there, True
    return write_text_corpus(settings), False


def _existing(out: Path) -> Manifest | None:
    if not (out / MANIFEST).is_file():
        return None
    try:
        return Manifest.load(out)
    except CorpusError:
        return None  # another version's: made anew
