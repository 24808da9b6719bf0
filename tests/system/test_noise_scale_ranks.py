"""The noise scale on two ranks, under DDP, FSDP1 and FSDP2: that of one rank."""

import numpy as np
import pytest
from fits import write
from ranks_fit import LENGTH, VOCAB, fit
from ranks_jobs import rate, run_ranks, settings

pytestmark = pytest.mark.slow


def test_ranks_measure_as_one(tmp_path):
    rng = np.random.default_rng(1)
    tokens = np.minimum(rng.geometric(0.1, size=(160, LENGTH)), VOCAB - 1).astype(np.int32)
    columns = {"tokens": f"ndarray:int32:{LENGTH}"}
    folder = write(tmp_path / "data", columns, [{"tokens": row} for row in tokens])
    given = {"attent": {"keep": 1}, "duration": "5ep"}
    alone = {
        micro: fit(data=settings(folder, 1), microbatch=micro, **given)["metrics"]
        for micro in (8, 4)
    }
    jobs = {
        f"{parallel} {micro}": {
            "data": settings(folder, 2),
            "microbatch": micro,
            "parallel": parallel,
            "lr": rate(parallel),
            **given,
        }
        for parallel in (None, "fsdp1", "fsdp2")
        for micro in (4, 2)
    }
    logs = run_ranks(tmp_path, jobs)
    for rank in logs:
        for name, log in rank.items():
            assert "error" not in log, log
            micro = int(name.split(" ")[1])
            found = log["metrics"]["attent/noise_scale"]
            assert found == logs[0][name]["metrics"]["attent/noise_scale"]
            want = alone[2 * micro]["attent/noise_scale"]
            # Two micro-batches of a rank are other halves of the batch than of one rank's.
            assert found == pytest.approx(want, rel=1e-2 if micro == 4 else 0.5), name
