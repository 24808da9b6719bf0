"""``attent-stream train`` and ``composer -m attent_stream.train``: a YAML and ``key=value`` overrides, trained."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from attent_stream.config import ConfigError, load_config, resolved, resolved_yaml

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what a YAML says; returns the exit code, 2 for a configuration that cannot be run (one sentence on stderr)."""
    parser = argparse.ArgumentParser(prog="attent-stream train", description=__doc__)
    parser.add_argument("config", metavar="YAML", help="the run, see yamls/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the file's, e.g. optimizer.lr=1e-4")
    parser.add_argument("--check", action="store_true", help="print the resolved configuration and stop")
    given = parser.parse_args(argv)
    try:
        config = load_config(given.config, given.overrides)
        if given.check:
            print(resolved_yaml(config), end="")
            return 0
        # Composer and Hugging Face take seconds to import: a wrong YAML does not wait for them.
        from attent_stream.build import build_trainer

        trainer = build_trainer(config)
    except ConfigError as error:
        # One sentence a machine: a folder may be missing on one of them only.
        if _environment("LOCAL_RANK") == 0:
            where = f"rank {_environment('RANK')}: " if _environment("RANK") else ""
            print(f"error: {where}{' '.join(str(error).split())}", file=sys.stderr, flush=True)
        log.debug("the configuration error was raised here", exc_info=error)
        return 2
    if _environment("RANK") == 0:
        print(resolved_yaml(config), flush=True)
    trainer.logger.log_hyperparameters(resolved(config))
    try:
        if config.eval_first and trainer.state.timestamp.batch == 0:
            trainer.eval()
        trainer.fit()
        line = summary(trainer.state)  # on every rank: metrics may have to be reduced over them
        if _environment("RANK") == 0:
            print(line, flush=True)
    finally:
        trainer.close()
    return 0


def summary(state: Any) -> str:
    """One line about a finished run: batches, samples and tokens trained on, and the last held-out metrics."""
    time = state.timestamp
    parts = [f"trained {time.batch.value} batches, {time.sample.value} samples, {time.token.value} tokens"]
    for label, metrics in state.eval_metrics.items():
        parts += [f"{label} {name} {float(metric.compute()):.4f}" for name, metric in metrics.items()]
    return "; ".join(parts)


def _environment(name: str) -> int:
    return int(os.environ.get(name, "0"))


if __name__ == "__main__":
    sys.exit(main())
