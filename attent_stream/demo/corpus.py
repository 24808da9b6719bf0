"""Write the demo's corpus of the Python standard library's sources, which every machine has."""

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
# Test suites, installed packages, and files of tables instead of programs.
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
    """List the .py files under a folder in sorted order, without skipped folders.

    Raises:
        CorpusError: There are none.
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
            f"this Python lacks its standard library's sources: no .py file under {root}"
        )
    return sorted(found)


def standard_library() -> Path:
    """Return the folder of Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def make_corpus(
    files: Sequence[Path], out: Path, *, vocab_size: int, seq_len: int, held_out: float
) -> tuple[Manifest, bool]:
    """Write the corpus, unless ``out`` holds one of the same files and settings.

    Args:
        files: The documents.
        out: The corpus's folder.
        vocab_size: Size of the trained BPE tokenizer.
        seq_len: Tokens in a sample.
        held_out: Share of the held-out files, chosen by a hash of their text.

    Returns:
        The manifest, and whether the corpus existed already.

    Raises:
        CorpusError: The corpus cannot be written.
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
        shutil.rmtree(left_over)  # Left by a killed run.
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
        return None  # Written by another version.
