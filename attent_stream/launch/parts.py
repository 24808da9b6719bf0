"""What a YAML can name: Composer's algorithms, callbacks, loggers, optimizers and schedulers, and
our own teacher.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attent_stream.launch.config_check import (
    ConfigError,
    checked_arguments,
    choose,
    join,
    refuse_unknown,
)

if TYPE_CHECKING:
    from attent_stream.launch.config import TrainConfig

PRESETS = ("attent_simple", "attent_complex")


def algorithms() -> dict[str, Callable]:
    """Name -> constructor: ``attent``, the two presets, every algorithm of Composer by its module's
    name.
    """
    import composer.algorithms
    from composer.core import Algorithm

    from attent_stream.fit.algorithm import AtteNT

    ours = {"attent": AtteNT, **{name: _preset_factory(name) for name in PRESETS}}
    return {**_by_module(composer.algorithms, Algorithm), **ours}


def callbacks() -> dict[str, Callable]:
    """Name -> constructor: every callback of Composer by its module's name (``speed_monitor``,
    ``lr_monitor``, ...).
    """
    import composer.callbacks
    from composer.core import Callback

    return _by_module(composer.callbacks, Callback)


def loggers() -> dict[str, Callable]:
    """Name -> constructor, by llm-foundry's names (``wandb``, ``tensorboard``, ``in_memory``) and
    ``file_logger``.
    """
    import composer.loggers
    from composer.loggers import LoggerDestination

    found = _by_module(composer.loggers, LoggerDestination)
    # Console and progress bar are keys of their own; the base class is no logger.
    unwanted = ("logger_destination", "console_logger", "progress_bar_logger")
    named = {name: made for name, made in found.items() if name not in unwanted}
    return {
        name if name == "file_logger" else name.removesuffix("_logger"): made
        for name, made in named.items()
    }


def optimizers() -> dict[str, Callable]:
    """Name -> constructor ``(params, **arguments)``."""
    import torch
    from composer.optim import DecoupledAdamW, DecoupledSGDW

    return {
        "decoupled_adamw": DecoupledAdamW,
        "decoupled_sgdw": DecoupledSGDW,
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
    }


def schedulers() -> dict[str, Callable]:
    """Name -> Composer scheduler, by llm-foundry's names where it has one."""
    from composer import optim

    return {
        "constant": optim.ConstantScheduler,
        "constant_with_warmup": optim.ConstantWithWarmupScheduler,
        "cosine": optim.CosineAnnealingScheduler,
        "cosine_with_warmup": optim.CosineAnnealingWithWarmupScheduler,
        "cosine_warm_restarts": optim.CosineAnnealingWarmRestartsScheduler,
        "exponential": optim.ExponentialScheduler,
        "linear": optim.LinearScheduler,
        "linear_decay_with_warmup": optim.LinearWithWarmupScheduler,
        "multistep": optim.MultiStepScheduler,
        "multistep_with_warmup": optim.MultiStepWithWarmupScheduler,
        "polynomial": optim.PolynomialScheduler,
        "polynomial_with_warmup": optim.PolynomialWithWarmupScheduler,
        "step": optim.StepScheduler,
    }


def _by_module(package: Any, base: type) -> dict[str, Callable]:
    """Subclasses of ``base`` that ``package`` exports, by the name of the module below the package
    that holds each.
    """
    depth = package.__name__.count(".") + 1
    classes = [getattr(package, name) for name in package.__all__]
    return {
        kind.__module__.split(".")[depth]: kind
        for kind in classes
        if inspect.isclass(kind) and issubclass(kind, base)
    }


def _preset_factory(name: str) -> Callable:
    """A constructor of ``AtteNT`` with the preset's settings, overridden by its arguments; signed
    like ``AtteNT``.
    """
    from attent_stream.fit.algorithm import AtteNT
    from attent_stream.fit.presets import preset

    def make(**settings):
        return AtteNT(**preset(name, **settings))

    make.__name__ = name
    make.__signature__ = inspect.signature(AtteNT)
    make.__annotations__ = typing.get_type_hints(AtteNT.__init__)
    return make


def check_parts(config: "TrainConfig") -> None:
    """Check every name and argument that a YAML gives to a part against the part's signature;
    raises ConfigError.
    """
    sections = (
        ("algorithms", "algorithm", algorithms, config.algorithms),
        ("callbacks", "callback", callbacks, config.callbacks),
        ("loggers", "logger", loggers, config.loggers),
    )
    for section, what, table, given in sections:
        if given:
            known = table()
            for name, arguments in given.items():
                factory = choose(name, known, join(section, name), what)
                checked_arguments(factory, arguments, join(section, name))
    optimizer = choose(config.optimizer.name, optimizers(), "optimizer.name", "optimizer")
    checked_arguments(optimizer, config.optimizer.arguments, "optimizer", supplied=("params",))
    if config.scheduler is not None:
        scheduler = choose(config.scheduler.name, schedulers(), "scheduler.name", "scheduler")
        checked_arguments(scheduler, config.scheduler.arguments, "scheduler")
    if config.fsdp_config is not None:
        fsdp(config.fsdp_config)
    if config.compile_config is not None:
        import torch

        checked_arguments(
            torch.compile, config.compile_config, "compile_config", supplied=("model", "disable")
        )


def fsdp(given: Mapping[str, Any]) -> Any:
    """Composer's FSDP settings from ``fsdp_config``; ``version: 2`` takes FSDP2. Raises ConfigError
    for unknown keys.
    """
    from composer.utils.parallelism import FSDP2Config, FSDPConfig

    settings = dict(given)
    version = settings.pop("version", 1)
    if version not in (1, 2):
        raise ConfigError(f"fsdp_config.version: expected 1 or 2, received {version!r}")
    kind = FSDP2Config if version == 2 else FSDPConfig
    # Neither takes part in a YAML: meshes, planners and process groups are objects.
    objects = ("device_mesh", "process_group", "load_planner", "save_planner", "ignored_modules")
    known = [
        name
        for name in kind.__dataclass_fields__
        if not name.startswith("_") and name not in objects
    ]
    refuse_unknown(settings, ["version", *known], "fsdp_config")
    return kind(**settings)


def make(factory: Callable, arguments: Mapping[str, Any], path: str, **supplied: Any) -> Any:
    """``factory(**supplied, **arguments)``; what the constructor refuses becomes a ConfigError."""
    checked = checked_arguments(factory, arguments, path, supplied=supplied)
    try:
        return factory(**supplied, **checked)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: {error}") from error
