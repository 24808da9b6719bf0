"""Views by name: what loader workers make of a candidate batch for a score that needs no model."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from attent_stream.base.registry import Registry
from attent_stream.score.ngrams import ngram_ids

VIEWS: Registry[Callable[[Any], NDArray]] = Registry("view", {"ngrams": ngram_ids})
