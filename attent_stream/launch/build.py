"""Build a Composer ``Trainer`` from a ``TrainConfig``."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from attent_stream.launch.config import TrainConfig
from attent_stream.launch.config_check import ConfigError, join
from attent_stream.launch.data import build_eval, build_train, check_folders, device_batch_size
from attent_stream.launch.models import build_model, build_tokenizer, hf_config
from attent_stream.launch.parts import (
    callbacks,
    find_algorithm,
    fsdp,
    loggers,
    make,
    optimizers,
    schedulers,
)

# Keys that Composer's Trainer takes unchanged.
PASSED_ON = (
    "max_duration",
    "seed",
    "deterministic_mode",
    "run_name",
    "eval_interval",
    "eval_subset_num_batches",
    "device",
    "precision",
    "device_train_microbatch_size",
    "accumulate_train_batch_on_tokens",
    "compile_config",
    "dist_timeout",
    "save_folder",
    "save_interval",
    "save_filename",
    "save_latest_filename",
    "save_overwrite",
    "save_weights_only",
    "save_num_checkpoints_to_keep",
    "load_path",
    "load_weights_only",
    "load_strict_model_weights",
    "load_ignore_keys",
    "autoresume",
    "progress_bar",
    "log_to_console",
    "console_log_interval",
    "python_log_level",
)


def check_machine(config: TrainConfig, ranks: int) -> None:
    """Check folders, batch sizes, precision and device on this machine; raise ConfigError."""
    import torch

    device_batch_size(config.global_train_batch_size, ranks, "global_train_batch_size")
    check_folders(config.train_loader.dataset, "train_loader.dataset")
    for path, loader in eval_paths(config):
        check_folders(loader.dataset, join(path, "dataset"))
    tokenizer = build_tokenizer(config.tokenizer)
    hf_config(config.model, None if tokenizer is None else len(tokenizer))
    if config.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("device: expected a CUDA device for 'gpu', but this machine has none")
    if not _on_gpu(config):
        if config.device_train_microbatch_size == "auto":
            raise ConfigError(
                "device_train_microbatch_size: 'auto' needs a GPU, set a number of samples"
            )
        if config.precision not in (None, "fp32") and config.device != "mps":
            raise ConfigError(f"precision: expected fp32 on a CPU, got {config.precision!r}")
    if (
        config.load_path is not None
        and "://" not in config.load_path
        and "{" not in config.load_path
    ):
        found = os.path.exists(config.load_path)
        if not found and not config.autoresume:
            raise ConfigError(f"load_path: {config.load_path!r} does not exist")


def eval_paths(config: TrainConfig) -> list[tuple[str, Any]]:
    """List each evaluation loader's key path and section."""
    listed = isinstance(config.eval_loader, list)
    return [
        (f"eval_loader[{i}]" if listed else "eval_loader", loader)
        for i, loader in enumerate(config.eval_loaders)
    ]


def _on_gpu(config: TrainConfig) -> bool:
    import torch

    return config.device == "gpu" or (config.device is None and torch.cuda.is_available())


def _built(
    section: str, find: Callable[[str], Callable], given: Mapping[str, Mapping[str, Any]]
) -> list[Any]:
    return [make(find(name), arguments, join(section, name)) for name, arguments in given.items()]


def build_trainer(config: TrainConfig) -> Any:
    """Seed, build and connect the ``composer.Trainer`` of a run without training.

    Call it on every rank: it initialises torch.distributed.

    Raises:
        ConfigError: A folder is missing, the ranks cannot share a batch evenly, or a constructor
            rejects a setting.
    """
    from composer import Algorithm, Trainer
    from composer.utils import dist, get_device, reproducibility

    from attent_stream.launch.checkpoint import numbers_only

    check_machine(config, dist.get_world_size())
    on_gpu = _on_gpu(config)
    if config.deterministic_mode:
        reproducibility.configure_deterministic_mode()
    reproducibility.seed_all(config.seed)
    dist.initialize_dist(get_device(config.device), timeout=config.dist_timeout)

    tokenizer = build_tokenizer(config.tokenizer)
    model = build_model(config.model, tokenizer)
    optimizer = make(
        optimizers()[config.optimizer.name],
        config.optimizer.arguments,
        "optimizer",
        params=model.parameters(),
    )
    scheduler = config.scheduler
    settings = {
        name: getattr(config, name) for name in PASSED_ON if getattr(config, name) is not None
    }
    # Elsewhere a bar is thousands of lines
    settings["progress_bar"] = config.progress_bar and sys.stderr.isatty()
    if config.fsdp_config is not None:
        settings["parallelism_config"] = {"fsdp": fsdp(config.fsdp_config)}

    ranks = dist.get_world_size()
    batch_size = device_batch_size(config.global_train_batch_size, ranks, "global_train_batch_size")
    shared = {"tokenizer": tokenizer, "seed": config.seed, "on_gpu": on_gpu}
    evaluators = [
        build_eval(
            loader,
            config.device_eval_batch_size or batch_size,
            path=path,
            metrics=list(model.get_metrics(is_train=False)),
            **shared,
        )
        for path, loader in eval_paths(config)
    ]
    listed = _built("algorithms", find_algorithm, config.listed_algorithms)
    hooks = _built("callbacks", callbacks().__getitem__, config.callbacks)
    destinations = _built("loggers", loggers().__getitem__, config.loggers)
    train = build_train(config.train_loader, batch_size, **shared)
    try:
        with numbers_only(config.load_unsafe_types):
            return Trainer(
                model=model,
                train_dataloader=train,
                eval_dataloader=evaluators or None,
                optimizers=optimizer,
                schedulers=None
                if scheduler is None
                else make(schedulers()[scheduler.name], scheduler.arguments, "scheduler"),
                algorithms=[made for made in listed if isinstance(made, Algorithm)],
                callbacks=[made for made in listed if not isinstance(made, Algorithm)] + hooks,
                loggers=destinations,
                **settings,
            )
    except (TypeError, ValueError, FileExistsError) as error:
        raise ConfigError(
            f"the Trainer rejected this configuration: {' '.join(str(error).split())}"
        ) from error
