"""The hidden folder in which a file arrives before it is whole; it is gone afterwards.

Each download has a folder of its own, so removing it is no race between processes. It is in the
cache, and so on the same file system: a finished file is moved into its place in one step.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streaming import Stream

PARTS = ".attent-parts"  # how the names of these folders begin


class Part:
    """A file that is being downloaded.

    Args:
        target: Where it will be. Its folder is made if it does not exist.
        folder: Where to download to, by default the folder of ``target``.

    Attributes:
        path: Where to download it to.
    """

    def __init__(self, target: Path, folder: Path | None = None) -> None:
        parent = folder or target.parent
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PARTS}-", dir=parent))
        self.path = self._folder / target.name

    @property
    def arrived(self) -> int:
        """Bytes that are here so far; a downloader may write under another name first."""
        total = 0
        for file in self._folder.glob("*"):
            try:
                total += file.stat().st_size
            except FileNotFoundError:  # renamed in the meantime
                continue
        return total

    def discard(self) -> None:
        """Remove whatever is here; again, if a download that was given up has ended after all."""
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_leftovers(streams: Sequence[Stream], before: float) -> None:
    """Remove the parts that a killed run left in the cache, if nobody has written to them since.

    Args:
        streams: Whose cache folders to search.
        before: Parts written to after this time are kept (s since the epoch).
    """
    for stream in streams:
        if stream.remote in (None, stream.local):
            continue  # nothing is downloaded, and the folder may be large or not ours
        for folder, names, _ in os.walk(Path(stream.local, stream.split)):
            for name in [name for name in names if name.startswith(PARTS)]:
                names.remove(name)
                left = Path(folder, name)
                if _written(left) < before:
                    shutil.rmtree(left, ignore_errors=True)


def _written(folder: Path) -> float:
    """When something in a folder, or the folder itself, was changed last (s since the epoch)."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:  # gone, or being changed at this moment
        return float("inf")
