"""Hypothesis tests of so many examples. That they are the same in every run is conftest's doing."""

from hypothesis import HealthCheck, settings


def seeded(examples: int) -> settings:
    """Settings for so many examples, of which many may be assumed away."""
    return settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
