"""What an index may say of a shard's files."""

import re

from streaming.base.format import get_index_basename

FILE_LIMIT = 1 << 40  # bytes of any shard file
MDS_LIMIT = 1 << 32  # bytes of an MDS file, whose offsets are uint32
OFFSET = 4  # least bytes of a sample in every format
_NAME_LIMIT = 255  # bytes of a file's name
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")


def name_is_inside(name: object) -> bool:
    """Whether a file's name lies in its stream's folder, and is not the index's."""
    if not isinstance(name, str):
        return False
    if _PLAIN.fullmatch(name):
        return name != get_index_basename()
    folders = name.split("/") if not set(name) & {"\0", "\\"} else [""]
    # An absolute path begins with "".
    inside = not set(folders) & {"", ".", ".."} and all(
        len(folder.encode(errors="replace")) <= _NAME_LIMIT for folder in folders
    )
    return inside and folders[-1] != get_index_basename()
