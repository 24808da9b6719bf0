"""Compare each arm with plain, shorter plain and random runs, with bootstrap intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attent_stream.bench.frontier import BETTER, WORSE, Frontier, Reading, frontier
from attent_stream.bench.intervals import Estimate, bootstrap
from attent_stream.bench.plan import ARM
from attent_stream.bench.record import Record
from attent_stream.bench.settings import PLAIN, BenchConfig

NOT_REACHED = "never as good as plain at full length"
AT_LEAST = "better than plain at its shortest: saves more than its shortest length does"


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """An arm at one length. Numbers are means over seeds.

    Args:
        arm, length: The arm's name and its share of the task's steps.
        steps, cost, seconds, cpu_seconds, tokens, flops: Cost is in step-equivalents or seconds.
        teaching_share: Share of the wall time spent teaching.
        step_ratio: Processor time of a step without teaching, relative to a plain step of the same
            seed. It shows costs that step-equivalents omit, such as recording losses. Its
            deviation from 1 in shorter plain runs is noise.
        quality: Held-out measure, averaged over labels, with its interval.
        labels: Measure by label.
        ahead_of_shorter: 1 - cost / (cost of a fully decayed plain run of this quality), by
            interpolation.
        ahead_of_random: The same relative to the control arm's lengths.
        at_equal_cost: Advantage in quality over a plain run of this cost; positive is better.
        against_random: Advantage over the control at this length; positive is better.
        notes: Why values are missing.
    """

    arm: str
    length: float
    steps: float
    cost: float
    seconds: float
    cpu_seconds: float
    tokens: float
    flops: float
    teaching_share: float
    step_ratio: float
    quality: Estimate
    labels: dict[str, float]
    ahead_of_shorter: Estimate
    ahead_of_random: Estimate
    at_equal_cost: Estimate
    against_random: Estimate
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of a task's arms.

    Args:
        task, seeds: The task's name and the compared seeds.
        rows: The arms at their lengths.
        saved: By arm, 1 - (its cost at the quality of full-length plain) / (plain's cost).
        why: By arm, why ``saved`` has no value.
    """

    task: str
    seeds: tuple[int, ...]
    rows: tuple[ArmRow, ...]
    saved: dict[str, Estimate]
    why: dict[str, str]


class _Table:
    """Costs and losses of runs by arm, length and seed."""

    def __init__(self, bench: BenchConfig, records: Sequence[Record]) -> None:
        self.bench = bench
        arms = [r for r in records if r.role == ARM and r.arm in bench.arms]
        self.runs = {(r.arm, r.length, r.seed): r for r in arms if np.isfinite(r.last.quality)}
        self.diverged = [
            f"{r.arm} {r.length:g} seed {r.seed}" for r in arms if not np.isfinite(r.last.quality)
        ]
        cells = [
            (name, length) for name, arm in bench.arms.items() for length in sorted(arm.lengths)
        ]
        # Only seeds of all arms, so that a lucky seed counts for all.
        self.seeds = [s for s in bench.seeds if all((*cell, s) in self.runs for cell in cells)]
        self.cells = cells
        self.sign = -1.0 if bench.higher else 1.0

    def loss(self, arm: str, length: float, seed: int) -> float:
        return self.sign * self.runs[arm, length, seed].last.quality

    def cost(self, arm: str, length: float, seed: int) -> float:
        last = self.runs[arm, length, seed].last
        how = self.bench.arms[arm].cost or self.bench.cost
        plain = self.runs[PLAIN, 1, seed].last
        if self.bench.cost == "seconds":
            return last.seconds
        return (
            last.step_equivalents
            if how == "steps"
            else last.cpu_seconds / plain.cpu_seconds * plain.step
        )

    def step_ratio(self, arm: str, length: float, seed: int) -> float:
        last, plain = self.runs[arm, length, seed].last, self.runs[PLAIN, 1, seed].last
        training = last.cpu_seconds * (1 - last.teaching_seconds / last.seconds)
        return training / last.step / (plain.cpu_seconds / plain.step)

    def mean(
        self,
        what: Callable[[str, float, int], float],
        arm: str,
        length: float,
        seeds: Sequence[int],
    ) -> float:
        return float(np.mean([what(arm, length, self.seeds[i]) for i in seeds]))

    def frontier(self, arm: str, seeds: Sequence[int]) -> Frontier:
        lengths = sorted(self.bench.arms[arm].lengths)
        costs = [self.mean(self.cost, arm, length, seeds) for length in lengths]
        return frontier(costs, [self.mean(self.loss, arm, length, seeds) for length in lengths])

    def ahead(self, arm: str, length: float, of: str, seeds: Sequence[int]) -> Reading:
        read = self.frontier(of, seeds).cost_at(self.mean(self.loss, arm, length, seeds))
        if read.value is None:
            return read
        return Reading(
            value=1 - self.mean(self.cost, arm, length, seeds) / read.value, where=read.where
        )

    def saved(self, arm: str, seeds: Sequence[int]) -> Reading:
        read = self.frontier(arm, seeds).cost_at(self.mean(self.loss, PLAIN, 1, seeds))
        if read.value is None:
            return read
        return Reading(
            value=1 - read.value / self.mean(self.cost, PLAIN, 1, seeds), where=read.where
        )

    def at_equal_cost(self, arm: str, length: float, seeds: Sequence[int]) -> float | None:
        read = self.frontier(PLAIN, seeds).loss_at(self.mean(self.cost, arm, length, seeds))
        return None if read.value is None else read.value - self.mean(self.loss, arm, length, seeds)


def compare(bench: BenchConfig, records: Sequence[Record]) -> Comparison:
    """Compare the arms over their common seeds; raise ValueError if there are none."""
    table = _Table(bench, records)
    if not table.seeds:
        lost = f" (diverged: {', '.join(table.diverged)})" if table.diverged else ""
        raise ValueError(f"{bench.task}: no seed has runs of all arms and lengths yet{lost}")
    count, saved, why = len(table.seeds), {}, {}
    for arm in bench.arms:
        if arm == PLAIN:
            saved[arm] = Estimate(value=0.0)
            continue
        saved[arm] = bootstrap(lambda seeds, arm=arm: table.saved(arm, seeds).value, count)
        where = table.saved(arm, range(count)).where
        if where in (WORSE, BETTER):
            why[arm] = NOT_REACHED if where == BETTER else AT_LEAST
    rows = tuple(_row(table, arm, length) for arm, length in table.cells)
    return Comparison(task=bench.task, seeds=tuple(table.seeds), rows=rows, saved=saved, why=why)


def _row(table: _Table, arm: str, length: float) -> ArmRow:
    count, bench = len(table.seeds), table.bench
    last = [table.runs[arm, length, seed].last for seed in table.seeds]
    control = bench.arms[arm].control
    notes = []

    def ahead(of: str) -> Estimate:
        if of not in bench.arms or of == arm or (arm == PLAIN):
            return Estimate(value=None)
        read = table.ahead(arm, length, of, range(count))
        if read.value is None:
            notes.append(f"{read.where} lengths of {of}")
        return bootstrap(lambda seeds: table.ahead(arm, length, of, seeds).value, count)

    def against_random(seeds: Sequence[int]) -> float | None:
        if (
            control == arm
            or arm == PLAIN
            or control not in bench.arms
            or length not in bench.arms[control].lengths
        ):
            return None
        return table.mean(table.loss, control, length, seeds) - table.mean(
            table.loss, arm, length, seeds
        )

    def mean(name: str) -> float:
        return float(np.mean([getattr(point, name) for point in last]))

    return ArmRow(
        arm=arm,
        length=length,
        steps=mean("step"),
        cost=table.mean(table.cost, arm, length, range(count)),
        seconds=mean("seconds"),
        cpu_seconds=mean("cpu_seconds"),
        tokens=mean("tokens"),
        flops=mean("flops"),
        teaching_share=mean("teaching_seconds") / max(mean("seconds"), 1e-9),
        step_ratio=table.mean(table.step_ratio, arm, length, range(count)),
        quality=bootstrap(
            lambda seeds: table.sign * table.mean(table.loss, arm, length, seeds), count
        ),
        labels={
            label: float(np.mean([{**p.measures, **p.beside}[label] for p in last]))
            for label in {**last[0].measures, **last[0].beside}
        },
        ahead_of_shorter=ahead(PLAIN),
        ahead_of_random=ahead(control),
        at_equal_cost=bootstrap(lambda seeds: table.at_equal_cost(arm, length, seeds), count),
        against_random=bootstrap(against_random, count),
        notes=tuple(notes),
    )
