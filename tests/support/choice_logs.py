"""Logs of choices, written by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def table(**columns) -> pa.Table:
    """Rows of one window, kept and without scores, where no columns are given."""
    count = len(columns["sample"])
    plain = {
        "epoch": pa.array([0] * count, pa.int32()),
        "window": pa.array([0] * count, pa.int32()),
        "batch": pa.array([0] * count, pa.int64()),
        "stream": pa.array([0] * count, pa.int32()),
        "kept": [True] * count,
        "weight": pa.array([1.0] * count, pa.float32()),
        "by": ["scored"] * count,
        "score": pa.array([None] * count, pa.float32()),
    }
    return pa.table({**plain, **columns})


def write_log(folder: Path, files: dict[str, pa.Table], *streams: dict) -> str:
    """Write a log of streams ``{name, local, first}``, by default of one that is nowhere."""
    folder.mkdir()
    for name, made in files.items():
        pq.write_table(made, folder / name)
    nowhere = {"name": "a", "remote": None, "local": "/nowhere", "split": None, "first": 0}
    listed = [nowhere | stream for stream in streams] or [nowhere]
    (folder / "streams.json").write_text(json.dumps(listed))
    return str(folder)
