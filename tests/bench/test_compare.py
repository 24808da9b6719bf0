"""The comparison of arms, against known answers."""

import numpy as np
import pytest
from bench_records import bench_of, record_of, records_of

from attent_stream.bench.compare import AT_LEAST, NOT_REACHED, compare
from attent_stream.bench.settings import ArmConfig


@pytest.mark.parametrize("higher", [False, True])
def test_a_comparison_gives_known_answers(higher):
    bench = bench_of(higher=higher)
    found = compare(bench, records_of(sign=-1 if higher else 1))
    short, long = (row for row in found.rows if row.arm == "ours")
    # 50 steps and 10% teaching cost 55; plain reaches 3.2 at 90 steps.
    assert short.cost == pytest.approx(55) and short.ahead_of_shorter.value == pytest.approx(
        1 - 55 / 90
    )
    # The seeds' noise is common to all arms
    assert short.ahead_of_shorter.low == pytest.approx(1 - 55 / 90)
    # 55 s of the processor for 50 steps, 5 of them spent teaching
    assert short.step_ratio == pytest.approx(1)
    assert short.at_equal_cost.value == pytest.approx(3.9 - 3.2)
    assert short.against_random.value == pytest.approx(0.6)
    assert (
        short.ahead_of_random.value is None and "better than all lengths of random" in short.notes
    )
    assert long.ahead_of_shorter.value is None
    # Plain's 3.0 lies two thirds of the way from 3.2 at 55 to 2.9 at 82.5.
    assert found.saved["ours"].value == pytest.approx(1 - (55 + 27.5 * 2 / 3) / 100)
    assert found.saved["random"].value is None and found.why["random"] == NOT_REACHED
    assert (
        compare(bench, records_of(ours=(2.9, 2.8), sign=-1 if higher else 1)).why["ours"]
        == AT_LEAST
    )


def test_costs_are_counted_as_the_bench_says():
    records = records_of()
    arms = {**bench_of().arms, "ours": ArmConfig(lengths=[0.5, 0.75], cost="cpu")}
    rows = {(r.arm, r.length): r.cost for r in compare(bench_of(arms=arms), records).rows}
    assert rows["ours", 0.5] == pytest.approx(55) and rows["plain", 1.0] == 100
    rows = {(r.arm, r.length): r.cost for r in compare(bench_of(cost="seconds"), records).rows}
    assert rows["ours", 0.75] == pytest.approx(82.5)


def test_only_seeds_that_every_arm_has_are_compared():
    records = [r for r in records_of() if (r.arm, r.seed) != ("ours", 2)]
    assert compare(bench_of(), records).seeds == (1, 3)
    with pytest.raises(ValueError, match="no seed"):
        compare(bench_of(), [r for r in records if r.arm != "random"])
    diverged = [
        *(r for r in records_of() if r.arm != "ours"),
        *(record_of("ours", 0.5, s, np.nan, 50) for s in (1, 2, 3)),
    ]
    with pytest.raises(ValueError, match="diverged: ours 0.5 seed 1"):
        compare(bench_of(), diverged)
