"""Temporary folders for downloads, from which complete files are moved into the cache.

Each download has its own hidden folder, so processes do not race to remove it. The folder is in the
cache, and so on the same file system: a complete file is moved in one step.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streaming import Stream

PARTS = ".attent-parts"  # prefix of the folders' names


class Part:
    """A file that is being downloaded.

    Args:
        target: Final path of the file; its folder is made if it does not exist.
        folder: Parent of the temporary folder, by default the folder of ``target``.

    Attributes:
        path: Path to download the file to.
    """

    def __init__(self, target: Path, folder: Path | None = None) -> None:
        parent = folder or target.parent
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PARTS}-", dir=parent))
        self.path = self._folder / target.name

    @property
    def arrived(self) -> int:
        """Bytes downloaded so far, under any name that the downloader uses."""
        total = 0
        for file in self._folder.glob("*"):
            try:
                total += file.stat().st_size
            except FileNotFoundError:  # renamed in the meantime
                continue
        return total

    def discard(self) -> None:
        """Remove the folder; called again if an abandoned download ends after all."""
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_leftovers(streams: Sequence[Stream], before: float) -> None:
    """Remove the temporary folders that a killed run left in the cache.

    Args:
        streams: The streams whose cache folders to search.
        before: Keep folders written to after this time (s since the epoch).
    """
    for stream in streams:
        if stream.remote in (None, stream.local):
            continue  # the folder is no cache, and may be large
        for folder, names, _ in os.walk(Path(stream.local, stream.split)):
            for name in [name for name in names if name.startswith(PARTS)]:
                names.remove(name)
                left = Path(folder, name)
                if _written(left) < before:
                    shutil.rmtree(left, ignore_errors=True)


def _written(folder: Path) -> float:
    """Return when a folder or something in it was last changed (s since the epoch)."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:  # removed or changed at this moment
        return float("inf")
