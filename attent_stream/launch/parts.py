"""Algorithms, callbacks, loggers, optimizers and schedulers by their names in a YAML."""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attent_stream.base.registry import Registry
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
TEACHERS = ("attent", *PRESETS)


def algorithms() -> Registry[Callable]:
    """Return the constructors of ``attent``, its presets and Composer's algorithms.

    Composer's algorithms have their modules' names. A user's own is ``package.module:Class``.
    """
    import composer.algorithms
    from composer.core import Algorithm

    from attent_stream.fit.algorithm import AtteNT
    from attent_stream.fit.algorithms import ALGORITHMS

    ours = {"attent": AtteNT, **{name: _preset_factory(name) for name in PRESETS}}
    ours |= ALGORITHMS.known
    return Registry("algorithms", {**_by_module(composer.algorithms, Algorithm), **ours})


def find_algorithm(name: str) -> Callable:
    """Return the constructor of an entry of ``algorithms:``.

    Args:
        name: A name in ``algorithms()``, or ``package.module:Class`` of a Composer ``Algorithm`` or
            ``Callback``.

    Raises:
        ConfigError: The name is unknown, cannot be imported or is another kind of object.
    """
    from composer.core import Algorithm, Callback

    known, path = algorithms(), join("algorithms", name)
    own = ":" in str(name)
    if not own and name not in known:
        choose(name, dict.fromkeys(known.names), path, "algorithm")
    try:
        found = known.get(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if own and not (inspect.isclass(found) and issubclass(found, (Algorithm, Callback))):
        raise ConfigError(
            f"{path}: expected a class derived from Composer's Algorithm or Callback, got {found!r}"
        )
    return found


def callbacks() -> dict[str, Callable]:
    """Return Composer's callbacks by their modules' names, such as ``speed_monitor``."""
    import composer.callbacks
    from composer.core import Callback

    return _by_module(composer.callbacks, Callback)


def loggers() -> dict[str, Callable]:
    """Return Composer's loggers by llm-foundry's names (``wandb``, ...) and ``file_logger``."""
    import composer.loggers
    from composer.loggers import LoggerDestination

    found = _by_module(composer.loggers, LoggerDestination)
    # Top-level keys configure console and progress bar; the first is the base class.
    excluded = ("logger_destination", "console_logger", "progress_bar_logger")
    return {
        name if name == "file_logger" else name.removesuffix("_logger"): made
        for name, made in found.items()
        if name not in excluded
    }


def optimizers() -> dict[str, Callable]:
    """Return optimizers by name; each takes the parameters first."""
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
    """Return Composer's schedulers, by llm-foundry's names where it has one."""
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
    """Return the exported subclasses of ``base`` by the names of the package's modules."""
    depth = package.__name__.count(".") + 1
    classes = [getattr(package, name) for name in package.__all__]
    return {
        kind.__module__.split(".")[depth]: kind
        for kind in classes
        if inspect.isclass(kind) and issubclass(kind, base)
    }


def _preset_factory(name: str) -> Callable:
    """Return a constructor with ``AtteNT``'s signature and a preset's settings as defaults."""
    from attent_stream.fit.algorithm import AtteNT
    from attent_stream.fit.presets import preset

    def make(**settings):
        return AtteNT(**preset(name, **settings))

    make.__name__ = name
    make.__signature__ = inspect.signature(AtteNT)
    make.__annotations__ = typing.get_type_hints(AtteNT.__init__)
    return make


def check_parts(config: "TrainConfig") -> None:
    """Check the names and arguments of a run's components against their signatures.

    Raises:
        ConfigError: A name or an argument is wrong.
    """
    for name, arguments in config.algorithms.items():
        checked_arguments(find_algorithm(name), arguments, join("algorithms", name))
    for section, table, given in (
        ("callbacks", callbacks, config.callbacks),
        ("loggers", loggers, config.loggers),
    ):
        for name, arguments in given.items():
            path = join(section, name)
            checked_arguments(choose(name, table(), path, section[:-1]), arguments, path)
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
    """Build Composer's FSDP settings from ``fsdp_config``; ``version: 2`` selects FSDP2.

    Raises:
        ConfigError: The version or a key is unknown.
    """
    from composer.utils.parallelism import FSDP2Config, FSDPConfig

    settings = dict(given)
    version = settings.pop("version", 1)
    if version not in (1, 2):
        raise ConfigError(f"fsdp_config.version: expected 1 or 2, got {version!r}")
    kind = FSDP2Config if version == 2 else FSDPConfig
    # A YAML cannot give these objects.
    objects = ("device_mesh", "process_group", "load_planner", "save_planner", "ignored_modules")
    known = [
        name
        for name in kind.__dataclass_fields__
        if not name.startswith("_") and name not in objects
    ]
    refuse_unknown(settings, ["version", *known], "fsdp_config")
    return kind(**settings)


def make(factory: Callable, arguments: Mapping[str, Any], path: str, **supplied: Any) -> Any:
    """Call ``factory(**supplied, **arguments)``, and turn its errors into ConfigError."""
    checked = checked_arguments(factory, arguments, path, supplied=supplied)
    try:
        return factory(**supplied, **checked)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: {error}") from error
