"""Padded text on two ranks, under DDP, FSDP1 and FSDP2: the training of one rank."""

import numpy as np
import pytest
from fits import write
from ranks_fit import LENGTH, VOCAB, fit
from ranks_jobs import rate, run_ranks, settings

pytestmark = pytest.mark.processes


def test_ranks_train_as_one(tmp_path):
    rng = np.random.default_rng(1)
    samples = [rng.integers(1, VOCAB, rng.integers(4, LENGTH)).astype(np.int32) for _ in range(104)]
    columns = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}
    made = [dict.fromkeys(columns, ids) for ids in samples]
    folder = write(tmp_path / "data", columns, made)
    attent = {"keep": 1, "arrange": {"group": "length", "sort": "length"}}
    given = {"model": "chats", "attent": attent, "duration": "2ep"}
    alone = fit(data=settings(folder, 1), microbatch=4, **given)
    sorted_only = given | {"attent": {"keep": 1, "arrange": {"sort": "length"}}}
    assert not np.allclose(
        fit(data=settings(folder, 1), microbatch=4, **sorted_only)["weights"],
        alone["weights"],
        atol=1e-5,
    )
    by_tokens = {"saving": {"accumulate_train_batch_on_tokens": True}}
    jobs = {
        f"{parallel} {list(more)}": {
            "data": settings(folder, 2),
            "microbatch": 2,
            "parallel": parallel,
            "lr": rate(parallel),
            **given,
            **more,
        }
        for parallel, more in ((None, {}), (None, by_tokens), ("fsdp1", {}), ("fsdp2", {}))
    }
    for rank in run_ranks(tmp_path, jobs):
        for name, log in rank.items():
            assert "error" not in log, log
            np.testing.assert_allclose(log["weights"], alone["weights"], atol=1e-6, err_msg=name)
            assert log["metrics"]["attent/positions"] < 1
