"""Indices of shards that do not exist."""

import json
from pathlib import Path
from typing import Any

KIND: dict[str, Any] = {
    "column_encodings": ["ndarray:uint16"],
    "column_names": ["tokens"],
    "column_sizes": [None],
    "compression": None,
    "format": "mds",
    "hashes": [],
    "size_limit": 1 << 26,
    "version": 2,
}


def entry(number: int, **more: Any) -> dict[str, Any]:
    """A shard's entry, as Streaming's MDSWriter writes it."""
    raw = {"basename": f"shard.{number:05}.mds", "bytes": 4096, "hashes": {}}
    return {**KIND, "samples": 16 + number % 3, "raw_data": raw, "zip_data": None, **more}


def write_index(folder: Path, entries: list[dict[str, Any]], version: int = 2) -> Path:
    """Write an ``index.json``, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.json"
    path.write_text(json.dumps({"shards": entries, "version": version}))
    return path
