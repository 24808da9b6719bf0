"""Made-up results of arms."""

import numpy as np

from attent_stream.demo.report import ArmResult, Point, ScoredWindow


def make_window(batch: int, seed: int, size: int = 64) -> ScoredWindow:
    scores = np.random.default_rng([seed, batch]).normal(1.0, 0.1, size)
    return ScoredWindow(batch=batch, scores=scores, kept=scores > np.median(scores))


def make_result(
    name: str, losses, seconds=1.0, candidates=0, teaching=0.0, windows=()
) -> ArmResult:
    points = [
        Point(batch=10 * i, tokens=10_000 * i, seconds=seconds * i / (len(losses) - 1), loss=loss)
        for i, loss in enumerate(losses)
    ]
    return ArmResult(
        name=name,
        points=tuple(points),
        candidates=candidates,
        teaching_seconds=teaching,
        windows=tuple(windows),
        settings={"seed": 17},
    )
