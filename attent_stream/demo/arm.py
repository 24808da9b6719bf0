"""Train an arm of the demo: a small LLaMA from scratch, with or without AtteNT."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer import State, Trainer
from composer.algorithms import GradientClipping
from composer.loggers import InMemoryLogger, Logger
from composer.metrics.nlp import LanguageCrossEntropy
from composer.models import HuggingFaceModel
from composer.optim import CosineAnnealingWithWarmupScheduler
from composer.utils import reproducibility
from streaming import StreamingDataset
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream.base.training_time import TrainingTime
from attent_stream.corpus.batches import TokenCollator
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.demo.report import ArmResult, Point, ScoredWindow
from attent_stream.demo.settings import DemoSettings
from attent_stream.fit.algorithm import AtteNT
from attent_stream.launch.hf_model import wrapped


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The corpus's folders.

    Args:
        train: Shards to train on, which are streamed.
        held_out: Shards to evaluate on.
        cache: Folder of streamed shards, removed after each arm.
        vocab_size: Size of the tokenizer.
    """

    train: Path
    held_out: Path
    cache: Path
    vocab_size: int


def teacher(arm: str, settings: DemoSettings) -> AtteNT | None:
    """Return an arm's algorithm: none for ``uniform``, the defaults for ``taught``."""
    if arm == "uniform":
        return None
    if arm == "taught":
        return AtteNT(seed=settings.seed)
    select = "random" if arm == "random" else settings.select
    return AtteNT(
        keep=settings.keep,
        score=settings.score,
        select=select,
        warmup=f"{settings.warmup}ba",
        seed=settings.seed,
    )


def small_llama(settings: DemoSettings, vocab_size: int) -> HuggingFaceModel:
    """Build a LLaMA-style causal LM with random weights."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.width,
        intermediate_size=8 * settings.width // 3,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.width // 32,
        num_key_value_heads=settings.width // 32,
        max_position_embeddings=settings.seq_len,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return wrapped(
        LlamaForCausalLM(config),
        use_logits=True,
        shift_labels=True,
        eval_metrics=[LanguageCrossEntropy()],
    )


def held_out_loader(shards: Shards, settings: DemoSettings) -> DataLoader:
    """Load the random held-out samples that all arms are evaluated on."""
    dataset = StreamingDataset(local=str(shards.held_out), batch_size=1)
    rng = np.random.default_rng([settings.seed, 1])
    chosen = rng.permutation(dataset.num_samples)[: settings.eval_samples]
    samples = [dataset[int(i)] for i in np.sort(chosen)]
    return DataLoader(samples, batch_size=32, collate_fn=TokenCollator())


class Recorder(TrainingTime):
    """Record held-out losses, training time and scored windows, and update the progress bar.

    Args:
        algorithm: The arm's algorithm, or None.
        bar: The progress bar, in lesson batches.
    """

    def __init__(self, algorithm: AtteNT | None, bar: tqdm) -> None:
        super().__init__()
        self.points: list[Point] = []
        self.windows: list[ScoredWindow] = []
        self._algorithm = algorithm
        self._bar = bar
        self._last_choice: Any = None

    def eval_end(self, state: State, logger: Logger) -> None:
        loss = float(state.eval_metrics["eval"]["LanguageCrossEntropy"].compute())
        now = state.timestamp
        self.points.append(
            Point(batch=int(now.batch), tokens=int(now.token), seconds=self.seconds, loss=loss)
        )

    def batch_end(self, state: State, logger: Logger) -> None:
        choice = self._algorithm.last_choice if self._algorithm is not None else None
        if choice is not self._last_choice and choice.scores is not None:
            window = ScoredWindow(
                batch=int(state.timestamp.batch),
                scores=choice.scores.reshape(-1),
                kept=choice.kept.reshape(-1),
            )
            self.windows.append(window)
        self._last_choice = choice
        losses = {"lesson loss": f"{float(state.loss):.3f}"}
        if self.points:
            losses["held-out loss"] = f"{self.points[-1].loss:.3f}"
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()


def run_arm(
    arm: str, shards: Shards, settings: DemoSettings, show: bool | None = None
) -> ArmResult:
    """Train one arm from scratch and evaluate it.

    Args:
        arm: ``uniform``, ``random``, ``published`` or ``taught``; they differ only in the
            algorithm.
        shards: The corpus.
        settings: All other settings.
        show: Show the progress bar. None: only on a terminal.
    """
    shards.cache.mkdir(parents=True, exist_ok=True)
    # A new folder each time: Streaming rejects one that is still in a killed run's shared memory.
    cache = Path(tempfile.mkdtemp(prefix=f"{arm}-", dir=shards.cache))
    try:
        with tqdm(
            total=settings.steps, desc=arm, unit="batch", disable=None if show is None else not show
        ) as progress:
            return _train(arm, shards, settings, cache, progress)
    finally:
        shutil.rmtree(shards.cache, ignore_errors=True)


def _train(
    arm: str, shards: Shards, settings: DemoSettings, cache: Path, progress: tqdm
) -> ArmResult:
    reproducibility.seed_all(settings.seed)  # All arms start from the same weights.
    model = small_llama(settings, shards.vocab_size)
    dataset = TeachingDataset(
        remote=str(shards.train),
        local=str(cache),
        batch_size=settings.batch_size,
        shuffle=True,
        shuffle_seed=settings.seed,
        window=settings.window,
        gap=2,
    )
    loader = TeachingDataLoader(
        dataset, batch_size=settings.batch_size, collate_fn=TokenCollator(), num_workers=1
    )
    algorithm = teacher(arm, settings)
    recorder, memory = Recorder(algorithm, progress), InMemoryLogger()
    algorithms = [GradientClipping(clipping_type="norm", clipping_threshold=1.0)]
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        eval_dataloader=held_out_loader(shards, settings),
        eval_interval=f"{settings.eval_every}ba",
        optimizers=torch.optim.AdamW(
            model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.1
        ),
        schedulers=CosineAnnealingWithWarmupScheduler(t_warmup=f"{settings.warmup}ba", alpha_f=0.0),
        max_duration=f"{settings.steps}ba",
        algorithms=[algorithm, *algorithms] if algorithm else algorithms,
        callbacks=[recorder],
        loggers=[memory],
        device="cpu",
        precision="fp32",
        seed=settings.seed,
        progress_bar=False,
    )
    try:
        trainer.eval()
        trainer.fit()
    finally:
        trainer.close()

    def logged(name: str) -> list[float]:
        return [float(value) for _, value in memory.data.get(f"attent/{name}", [])]

    return ArmResult(
        name=arm,
        points=tuple(recorder.points),
        candidates=int(max(logged("candidates"), default=0)),
        teaching_seconds=sum(logged("seconds")),
        windows=tuple(recorder.windows),
        settings={"parameters": sum(p.numel() for p in model.parameters()), **asdict(settings)},
    )
