"""Read a YAML file and ``key=value`` overrides into a checked ``TrainConfig``."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attent_stream.base.redaction import masked
from attent_stream.launch.config_check import ConfigError, nearest, typed
from attent_stream.launch.config_sections import (
    EvalLoaderConfig,
    ModelConfig,
    Part,
    TokenizerConfig,
    TrainLoaderConfig,
)
from attent_stream.launch.parts import TEACHERS, check_parts

__all__ = ["ConfigError", "TrainConfig", "load_config", "resolved_yaml"]

_TIME = re.compile(r"[0-9][0-9.eE+]*(iter|ep|ba|sp|tok|dur|sec)$")
_DURATIONS = ("max_duration", "eval_interval", "save_interval", "console_log_interval")
LOG = "choice_log"
_LOGGED_TO = ("s3://", "gs://", "oci://", "azure://", "azure-dl://", "dbfs:/Volumes")
_NAMED = ("optimizer", "scheduler")
_BY_NAME = ("algorithms", "callbacks", "loggers")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training run.

    Times are Composer time strings (``10ba``, ``1ep``, ``1e9tok``, ``0.1dur``). An int counts
    epochs.

    Args:
        model: The model.
        train_loader: The training data and its loader.
        optimizer: ``name`` of an optimizer, and its arguments.
        max_duration: Length of the run, a time.
        global_train_batch_size: Samples of a step, over all ranks.
        variables: Names for ``${variables.x}``. ``x=...`` on the command line sets one.
        seed: Seed of the weights and of training.
        deterministic_mode: Whether only deterministic kernels are used. An error if one is missing.
        run_name: Names the run and its checkpoints.
        tokenizer: The tokenizer, for models and loaders that need one.
        eval_loader: One evaluation loader, or a list of them.
        eval_interval: Time between evaluations.
        eval_subset_num_batches: Batches of an evaluation. -1: all.
        eval_first: Whether to evaluate before the first step.
        device_train_microbatch_size: Samples that a rank forwards at once. ``auto``: as many as
            fit. None: all of its batch.
        device_eval_batch_size: Samples that a rank evaluates at once. None: its training batch.
        accumulate_train_batch_on_tokens: Whether micro-batches weigh as much as they have tokens.
        scheduler: ``name`` of a learning-rate schedule, and its arguments.
        algorithms: Composer algorithms by name, with their arguments. ``attent`` is one.
        callbacks: Composer callbacks by name, with their arguments.
        loggers: Composer loggers by name, with their arguments.
        device: The device. None: a GPU if there is one.
        precision: Number format of training. None: ``amp_fp16`` on a GPU, else ``fp32``.
        fsdp_config: Arguments of FSDP. None: DDP on several ranks.
        compile_config: Arguments of ``torch.compile``. None: not compiled.
        dist_timeout: Seconds that a rank waits for another.
        save_folder: Folder or URL for checkpoints. None: none are saved.
        save_interval: Time between checkpoints.
        save_filename: Name of a checkpoint, with Composer's placeholders.
        save_latest_filename: Name of the link to the last checkpoint.
        save_overwrite: Whether existing checkpoints are overwritten.
        save_weights_only: Whether checkpoints hold the weights only.
        save_num_checkpoints_to_keep: Checkpoints that are kept. -1: all.
        load_path: Checkpoint to go on from.
        load_weights_only: Whether only its weights are loaded, for a new run.
        load_strict_model_weights: Whether its weights must be all of the model's.
        load_ignore_keys: Patterns of state that is not loaded.
        load_unsafe_types: Whether checkpoints may be loaded that can run code.
        autoresume: Whether to go on from the last checkpoint in ``save_folder``.
        choice_log: Whether the metrics and AtteNT's choices are logged to ``save_folder/choices``
            (docs/report.md), or ``save_folder/choices/{run_name}`` if the folder does not name the
            run. An algorithm ``choice_log`` of its own is taken instead.
        progress_bar: Whether progress is shown: a bar on a terminal, else a line a minute.
        log_to_console: Whether metrics are printed.
        console_log_interval: Time between printed metrics.
        python_log_level: Level of this package's and Composer's log. None: Python's.
    """

    model: ModelConfig
    train_loader: TrainLoaderConfig
    optimizer: Part
    max_duration: int | str
    global_train_batch_size: int
    variables: dict[str, Any] = field(default_factory=dict)
    seed: int = 17
    deterministic_mode: bool = False
    run_name: str | None = None
    tokenizer: TokenizerConfig | None = None
    eval_loader: EvalLoaderConfig | list[EvalLoaderConfig] | None = None
    eval_interval: int | str = 1
    eval_subset_num_batches: int = -1
    eval_first: bool = False
    device_train_microbatch_size: int | Literal["auto"] | None = None
    device_eval_batch_size: int | None = None
    accumulate_train_batch_on_tokens: bool = False
    scheduler: Part | None = None
    algorithms: dict[str, dict[str, Any]] = field(default_factory=dict)
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    loggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    device: Literal["cpu", "gpu", "mps"] | None = None
    precision: Literal["fp32", "amp_fp16", "amp_bf16", "amp_fp8"] | None = None
    fsdp_config: dict[str, Any] | None = None
    compile_config: dict[str, Any] | None = None
    dist_timeout: float = 600.0
    save_folder: str | None = None
    save_interval: int | str = "1ep"
    save_filename: str | None = None
    save_latest_filename: str | None = None
    save_overwrite: bool = False
    save_weights_only: bool = False
    save_num_checkpoints_to_keep: int = -1
    load_path: str | None = None
    load_weights_only: bool = False
    load_strict_model_weights: bool = True
    load_ignore_keys: list[str] | None = None
    load_unsafe_types: bool = False
    autoresume: bool = False
    choice_log: bool = True
    progress_bar: bool = True
    log_to_console: bool = False
    console_log_interval: int | str = "1ba"
    python_log_level: Literal["debug", "info", "warning", "error", "critical"] | None = None

    def __post_init__(self):
        for name in _DURATIONS:
            value = getattr(self, name)
            if isinstance(value, str) and not _TIME.match(value):
                raise ConfigError(
                    f"{name}: expected a time such as '100ba', '1ep' or '1e9tok', got {value!r}"
                )
        for name in (
            "global_train_batch_size",
            "device_eval_batch_size",
            "device_train_microbatch_size",
        ):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{name}: expected a positive number of samples, got {value}")
        if self.autoresume and (self.save_folder is None or self.run_name is None):
            raise ConfigError(
                "autoresume: expected save_folder and run_name too, got autoresume alone"
            )
        if self.model.name == "hf_masked_lm" and self.tokenizer is None:
            raise ConfigError("tokenizer: missing, model hf_masked_lm needs its mask token")
        image = self.train_loader.name == "image"
        if image != (self.model.name == "hf_image_classifier"):
            raise ConfigError(
                f"train_loader.name: {self.train_loader.name!r} does not go with model "
                f"{self.model.name!r}"
            )
        labels = [loader.label for loader in self.eval_loaders]
        if len(set(labels)) != len(labels):
            raise ConfigError(
                f"eval_loader: expected a different label for each loader, got {', '.join(labels)}"
            )
        teachers = [name for name in self.algorithms if name in TEACHERS]
        if len(teachers) > 1:
            raise ConfigError(f"algorithms: expected one teacher, got {' and '.join(teachers)}")

    @property
    def listed_algorithms(self) -> dict[str, dict[str, Any]]:
        """The algorithms, with a log of metrics and choices beside the checkpoints."""
        folder = self.save_folder
        if not (self.choice_log and folder) or LOG in self.algorithms:
            return self.algorithms
        if re.match(r"[a-z0-9-]+:", folder) and not folder.startswith(_LOGGED_TO):
            return self.algorithms  # a store that logs cannot be uploaded to
        folder = f"{folder.rstrip('/')}/choices"
        if "{run_name}" not in folder:  # runs may share it
            folder += "/{run_name}"
        return {**self.algorithms, LOG: {"folder": folder}}

    @property
    def eval_loaders(self) -> list[EvalLoaderConfig]:
        """The evaluation loaders as a list."""
        if self.eval_loader is None:
            return []
        return self.eval_loader if isinstance(self.eval_loader, list) else [self.eval_loader]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, apply overrides in order, resolve ``${...}`` and check the result.

    Args:
        path: The YAML file.
        overrides: ``key=value`` strings. A mapping as the value replaces the file's section. If
            ``key`` is no top-level key but a name under ``variables``, it sets that variable.

    Raises:
        ConfigError: The file cannot be read, a key is unknown (also in an algorithm's arguments),
            a value has the wrong type, or a required key is missing.
    """
    plain = _plain(path, overrides)
    for name in _BY_NAME:
        if isinstance(plain.get(name), Mapping):
            plain[name] = {
                part: {} if given is None else given for part, given in plain[name].items()
            }
        elif name in plain and plain[name] is None:
            plain[name] = {}
    for name in _NAMED:
        section = plain.get(name)
        if isinstance(section, Mapping):
            given = {key: value for key, value in section.items() if key != "name"}
            plain[name] = {
                **({"name": section["name"]} if "name" in section else {}),
                "arguments": given,
            }
    config = typed(plain, TrainConfig)
    check_parts(config)  # Last, because it imports Composer, which takes seconds.
    return config


def read_yaml(path: str | Path) -> Any:
    """Read a YAML mapping as an OmegaConf ``DictConfig``, with interpolations unresolved.

    Raises:
        ConfigError: The file cannot be read or holds no mapping.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = OmegaConf.create(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not a readable YAML file, {_reason(error)}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of keys, got a list")
    return tree


def _plain(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read the file and the overrides as plain values, with interpolations resolved."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    tree = read_yaml(path)
    for override in overrides:
        key, sign, value = override.partition("=")
        key = key.strip()
        if not sign or not key:
            raise ConfigError(f"{override}: expected an override like key=value, got {override!r}")
        try:
            section = key.split(".")[0]
            if section not in _top_level() and section in _variables(tree):
                key = f"variables.{key}"
            OmegaConf.update(
                tree, key, OmegaConf.from_dotlist([f"value={value}"])["value"], merge=False
            )
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            shown = masked(value, key.rpartition(".")[2])
            raise ConfigError(f"{key}: cannot be set to {shown!r}, {_reason(error)}") from error
    try:
        return OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        name = str(error.full_key)
        short = name.removeprefix("variables.")
        raise ConfigError(f"{name}: missing, give it as {short}=... on the command line") from error
    except OmegaConfBaseException as error:
        detail = _reason(error)
        known = [f"variables.{name}" for name in _variables(tree)]
        missing = re.search(r"Interpolation key '([^']+)'", detail)
        hint = f", {nearest(missing.group(1), known)}" if missing and known else ""
        raise ConfigError(f"{error.full_key}: cannot be resolved, {detail}{hint}") from error


def _variables(tree: Any) -> list[str]:
    """List the names under ``variables``, including those without a value yet (``???``)."""
    from omegaconf import DictConfig

    section = tree._get_node("variables")
    return [str(name) for name in section] if isinstance(section, DictConfig) else []


def _top_level() -> set[str]:
    return {entry.name for entry in dataclasses.fields(TrainConfig)}


def _reason(error: Exception) -> str:
    """Return the first line of an error, with its position in the file where known."""
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error).split("\n")[0]
    return (
        f"{message} (line {mark.line + 1}, column {mark.column + 1})"
        if mark is not None
        else message
    )


def resolved(config: TrainConfig) -> dict[str, Any]:
    """Convert to plain values that ``load_config`` reads back, without nulls and credentials."""
    return masked(_tree(config))


def resolved_yaml(config: TrainConfig) -> str:
    """Return ``resolved(config)`` as YAML text."""
    import yaml

    return yaml.safe_dump(resolved(config), sort_keys=False, default_flow_style=None, width=110)


def _tree(value: Any) -> Any:
    if isinstance(value, Part):
        return {"name": value.name, **value.arguments}
    if dataclasses.is_dataclass(value):
        entries = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        return {name: _tree(item) for name, item in entries.items() if item is not None}
    if isinstance(value, dict):
        return {key: _tree(item) for key, item in value.items()}
    return [_tree(item) for item in value] if isinstance(value, list | tuple) else value
