"""AtteNT as a streaming sampler: train on the samples that matter during streaming pretraining."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "AtteNT": "attent_stream.fit.algorithm",
    "ProgressiveResolution": "attent_stream.effects.resolution",
    "TeachingDataLoader": "attent_stream.data.dataloader",
    "TeachingDataset": "attent_stream.data.dataset",
    "TeachingLoop": "attent_stream.fit.plain_loop",
    "preset": "attent_stream.fit.presets",
}

__all__ = sorted(_EXPORTS)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import an export on first use, so that the command line starts without torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
