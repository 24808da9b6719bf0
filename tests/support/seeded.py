"""Hypothesis tests that draw the same examples in every run."""

from hypothesis import HealthCheck, settings


def seeded(examples: int) -> settings:
    """Settings for so many examples."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
