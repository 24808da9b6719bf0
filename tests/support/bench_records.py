"""A small bench, and made-up records of its runs."""

from attent_stream.bench.record import Point, Record
from attent_stream.bench.settings import ArmConfig, BenchConfig, TextData


def bench_of(**given):
    arms = {
        "plain": ArmConfig(lengths=[0.5, 1.0]),
        "random": ArmConfig(lengths=[0.5, 0.75]),
        "ours": ArmConfig(lengths=[0.5, 0.75]),
    }
    settings = {
        "task": "t<b>",
        "base": {},
        "steps": 100,
        "arms": arms,
        "text": TextData(streams={"a": 1.0}),
    }
    return BenchConfig(**{**settings, "seeds": [1, 2, 3], **given})


def record_of(arm, length, seed, loss, steps, teaching=0.0, **given):
    point = Point(
        step=steps,
        tokens=steps * 10,
        candidates=0,
        seconds=steps + teaching,
        cpu_seconds=steps + teaching,
        teaching_seconds=teaching,
        flops=1.0,
        measures={"a": loss - 0.1, "b": loss + 0.1},
    )
    return Record(
        key=f"{arm}-{length}-{seed}",
        task="t",
        arm=arm,
        length=length,
        seed=seed,
        lr=1e-3,
        role="arm",
        hardware="2 CPU cores",
        date="2026-11-25",
        points=(point,),
        **given,
    )


def records_of(ours=(3.2, 2.9), noise=(0.0, 0.01, 0.05), sign=1):
    found = []
    for seed, e in zip((1, 2, 3), noise, strict=True):
        found += [
            record_of("plain", 0.5, seed, sign * (4.0 + e), 50),
            record_of("plain", 1.0, seed, sign * (3.0 + e), 100),
        ]
        found += [
            record_of("random", 0.5, seed, sign * (3.8 + e), 50),
            record_of("random", 0.75, seed, sign * (3.4 + e), 75),
        ]
        found += [
            record_of("ours", 0.5, seed, sign * (ours[0] + e), 50, teaching=5.0),
            record_of("ours", 0.75, seed, sign * (ours[1] + e), 75, teaching=7.5),
        ]
    return found
