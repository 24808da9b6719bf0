"""Train from a YAML and key=value overrides, alone or under composer, torchrun, srun or mpirun."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from attent_stream.base.redaction import MaskedParser, mask_process, masked_text
from attent_stream.launch.config import (
    ConfigError,
    TrainConfig,
    load_config,
    resolved,
    resolved_yaml,
)
from attent_stream.launch.ranks import rank_variables

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Train a run, and return the exit code: 0, or 2 with one sentence on stderr after a mistake.

    A finished run with ``autoresume`` also returns 0.
    """
    parser = MaskedParser(prog="attent-stream train", description=__doc__)
    parser.add_argument("config", metavar="YAML", help="the run, see yamls/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace the file's, e.g. optimizer.lr=1e-4",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="print the resolved configuration and what the run would do, and exit",
    )
    if argv is None:
        mask_process()
    given = parser.parse_intermixed_args(argv)  # Overrides may precede an option.
    try:
        os.environ.update(rank_variables(os.environ))  # Before Composer reads them.
    except ConfigError as error:
        _tell(error)  # On all processes, because their ranks are unknown.
        return 2
    try:
        config = load_config(given.config, given.overrides)
        if given.check:
            check(config)
        else:
            train(config)
    except ConfigError as error:
        # Once on each machine: a folder may be missing on one of them only.
        if _environment("LOCAL_RANK") == 0:
            _tell(error)
        trace = masked_text("".join(traceback.format_exception(error)))
        log.debug("the configuration error was raised here: %s", trace)
        return 2
    return 0


def _tell(error: ConfigError) -> None:
    where = f"rank {_environment('RANK')}: " if _environment("RANK") else ""
    print(f"error: {where}{' '.join(str(error).split())}", file=sys.stderr, flush=True)


def check(config: TrainConfig) -> None:
    """Print the resolved configuration as YAML, and as comments what the run would do.

    Raises:
        ConfigError: The run could not start.
    """
    say = print if _environment("RANK") == 0 else _nothing
    say(resolved_yaml(config), end="", flush=True)
    from attent_stream.launch.forecast import forecast

    for line in forecast(config):
        say(f"# {masked_text(line)}", flush=True)


def train(config: TrainConfig) -> None:
    """Build the Trainer, log the resolved configuration, train, and print a summary.

    Raises:
        ConfigError: The run cannot start.
    """
    # Composer and Hugging Face take seconds to import, and a mistake in the YAML needs neither.
    from attent_stream.launch.build import build_trainer

    trainer = build_trainer(config)
    say = print if _environment("RANK") == 0 else _nothing
    try:
        say(resolved_yaml(config), flush=True)
        trainer.logger.log_hyperparameters(resolved(config))
        if trainer.state.get_elapsed_duration() >= 1.0:
            if not config.autoresume:
                raise ConfigError(
                    f"max_duration: the checkpoint is already trained for {config.max_duration}"
                )
            say("training is already complete")
        else:
            _fit(trainer, config)
        line = summary(trainer.state)  # On every rank, because metrics reduce over ranks.
        say(line, flush=True)
    finally:
        trainer.close()


def _fit(trainer: Any, config: TrainConfig) -> None:
    from composer import Callback

    from attent_stream.base.watch import collective
    from attent_stream.launch.progress import Progress

    class Started(Callback):
        """Record that training has started; earlier errors concern the configuration."""

        started = False

        def batch_start(self, state: Any, logger: Any) -> None:
            self.started = True

    note = Started()
    trainer.state.callbacks.append(note)
    if config.progress_bar and not sys.stderr.isatty() and _environment("RANK") == 0:
        trainer.state.callbacks.append(Progress("training", _say_on_stderr))
    if config.eval_first and trainer.state.timestamp.batch == 0:
        trainer.eval()
    try:
        with collective("training"):
            trainer.fit()
    except (TypeError, ValueError) as error:
        if note.started:
            raise
        raise ConfigError(str(error)) from error


def _say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _nothing(*words: Any, **settings: Any) -> None:
    """Print nothing, on all ranks but the first."""


def summary(state: Any) -> str:
    """Summarize a run in one line: batches, samples, tokens and the last evaluation's metrics."""
    time = state.timestamp
    parts = [
        f"trained {time.batch.value} batches, {time.sample.value} samples, {time.token.value} "
        "tokens"
    ]
    for label, metrics in state.eval_metrics.items():
        parts += [
            f"{label} {name} {float(metric.compute()):.4f}" for name, metric in metrics.items()
        ]
    return "; ".join(parts)


def _environment(name: str) -> int:
    """Return an environment variable as a number, or 0 if it is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


if __name__ == "__main__":
    sys.exit(main())
