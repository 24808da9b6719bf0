"""Results that the report's and the picture's tests share."""

import pytest
from demo_results import make_result, make_window


@pytest.fixture
def results():
    windows = [make_window(batch, 0) for batch in range(10, 30, 2)]
    return [
        make_result("uniform", [8.3, 6.5, 5.25], seconds=40.0),
        make_result("random", [8.3, 6.5, 5.25], seconds=42.0),
        make_result(
            "taught",
            [8.3, 6.4, 5.125],
            seconds=80.0,
            candidates=4096,
            teaching=20.0,
            windows=windows,
        ),
    ]
