"""The simulator of large jobs: what it proves on small ones in every run, on 1,024 nodes in slow
ones; and that it can tell.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "simulate_scale.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("simulate_scale", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def simulate(tool, capsys, arguments: str) -> tuple[int, dict]:
    status = tool.main([*arguments.split(), "--shards", "10"])
    return status, json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        "--nodes 24 --ranks 8 --batch-size 2 --window 8 --gap 2 --keep 0.7",
        "--nodes 16 --ranks 4 --batch-size 1 --window 5 --gap 0 --select soft --windows 4",
        "--nodes 8 --ranks 4 --batch-size 16 --shuffle-algo py1s --window 6 --gap 1 --select soft "
        "--keep 0.3",
        "--nodes 1 --ranks 3 --batch-size 4 --window 4 --gap 1 --select random",
    ],
)
def test_counts_locality_and_conservation(tool, capsys, arguments):
    status, result = simulate(tool, capsys, arguments)
    assert status == 0 and result["ok"] and not any(result["wrong"].values())
    assert result["seen"]["candidates"] == result["seen"]["lessons"] + result["seen"]["dropped"]
    assert (
        result["seen"]["lessons"]
        == result["steps_of_a_rank"]["lessons"] * result["global_batch_size"]
    )


def test_what_a_rank_holds_grows_with_its_window_only(tool, capsys):
    """Bytes, not times: the same numbers on any machine."""
    small, large = (
        simulate(
            tool, capsys, f"--nodes {nodes} --ranks 8 --batch-size 4 --window 8 --gap 2 --probes 1"
        )[1]["bytes"]
        for nodes in (16, 64)
    )
    assert small["board"] == large["board"]
    for name in (
        "collectives received by a rank, a candidate row",
        "peak of a rank beside the order",
        "position in a checkpoint",
    ):
        assert large[name] < 4.2 * small[name], name
    assert large["peak of a rank beside the order, a candidate"] < 300


def test_a_plan_that_breaks_an_invariant_is_seen(tool, capsys, monkeypatch):
    arguments = "--nodes 16 --ranks 4 --batch-size 2 --window 8 --gap 2 --probes 1"
    with monkeypatch.context() as patch:  # one lane for all: samples cross machines
        patch.setattr(
            "attent_stream.teach.segments.lane_labels",
            lambda ids, layout, starts: np.zeros(ids.shape, np.int64),
        )
        status, result = simulate(tool, capsys, arguments)
        assert (
            status == 1
            and result["wrong"]["other node"] > 0
            and result["wrong"]["other canonical node"] > 0
        )
    with monkeypatch.context() as patch:  # a sample twice
        patch.setattr(
            "attent_stream.teach.teacher.select_lanes",
            lambda s, lanes, wanted, **_: (
                np.zeros(wanted.shape, np.int64),
                np.ones(wanted.shape, np.float32),
            ),
        )
        status, result = simulate(tool, capsys, arguments)
        assert status == 1 and result["wrong"]["not once"] > 0
    with monkeypatch.context() as patch:  # ranks that choose by themselves
        draws = iter(range(1000))
        patch.setattr(
            "scale_job.score_of",
            lambda ids: np.random.default_rng(next(draws)).random(ids.shape, np.float32),
        )
        status, result = simulate(tool, capsys, arguments.replace("--probes 1", "--probes 2"))
        assert status == 1 and result["wrong"]["ranks disagree"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", ["--batch-size 1", "--batch-size 8 --shuffle-algo py1s --probes 1"]
)
def test_a_thousand_nodes(tool, capsys, arguments):
    status, result = simulate(tool, capsys, arguments)
    assert status == 0 and result["nodes"] * result["ranks"] == 8192
