"""Algorithms of this package that stand beside AtteNT in a run, by their name in YAML."""

from composer import Algorithm

from attent_stream.base.registry import Registry
from attent_stream.effects.resolution import ProgressiveResolution
from attent_stream.fit.choice_log import ChoiceLog

ALGORITHMS: Registry[type[Algorithm]] = Registry(
    "algorithms", {"progressive_resolution": ProgressiveResolution, "choice_log": ChoiceLog}
)
