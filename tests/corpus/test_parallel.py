"""A map in several processes."""

import pytest

from attent_stream.corpus.parallel import ordered_map


@pytest.mark.parametrize("workers", [1, 3])
def test_ordered_map_keeps_order(workers):
    with ordered_map(abs, workers) as run:
        assert list(run(range(50), lambda i: -i)) == [(i, i) for i in range(50)]


@pytest.mark.parametrize("workers", [1, 2])
def test_ordered_map_passes_errors_on(workers):
    with pytest.raises(ZeroDivisionError), ordered_map(_inverse, workers) as run:
        list(run([2, 1, 0, 1], lambda i: i))


def _inverse(x):
    return 1 / x
