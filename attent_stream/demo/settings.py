"""The demo's checked settings."""

from dataclasses import dataclass, replace

ARMS = ("uniform", "random", "published", "taught")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The settings of all arms, and of AtteNT in the published and random arms.

    Args:
        steps: Lesson batches of each arm.
        eval_every: Lesson batches between evaluations.
        eval_samples: The most held-out samples.
        batch_size: Samples in a batch.
        seq_len: Tokens in a sample.
        vocab_size: Size of the tokenizer.
        width: Width of the hidden states, a multiple of 32.
        layers: Layers of the model.
        lr: Peak learning rate, which decays to 0.
        warmup: Batches until the peak; nothing is taught before.
        window: Candidate batches per window.
        keep: Share of a window's candidates that become lessons (published and random).
        score, select: As for ``AtteNT`` (published).
        held_out: Share of held-out files.
        every_file: Use every n-th file of the standard library.
        seed: Seed of weights, order and draws.

    Raises:
        ValueError: A setting is out of range.
    """

    steps: int = 480
    eval_every: int = 80
    eval_samples: int = 192
    batch_size: int = 8
    seq_len: int = 128
    vocab_size: int = 4096
    width: int = 192
    layers: int = 4
    lr: float = 2e-3
    warmup: int = 48
    window: int = 32
    keep: float = 0.5
    score: str = "residual"
    select: str = "soft"
    held_out: float = 0.05
    every_file: int = 1
    seed: int = 17

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "eval_every",
            "eval_samples",
            "batch_size",
            "layers",
            "warmup",
            "every_file",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width < 32 or self.width % 32:
            raise ValueError(f"width must be a multiple of 32, got {self.width}")

    def with_steps(self, steps: int) -> "DemoSettings":
        """Return a copy with another length, and warmup and evaluations in proportion."""
        scale = steps / self.steps
        return replace(
            self,
            steps=steps,
            warmup=max(1, round(self.warmup * scale)),
            eval_every=max(1, round(self.eval_every * scale)),
        )


FULL = DemoSettings()
# A test that takes a minute on one core.
QUICK = DemoSettings(
    steps=24,
    eval_every=8,
    eval_samples=32,
    vocab_size=512,
    seq_len=64,
    width=64,
    layers=2,
    warmup=4,
    window=8,
    every_file=8,
    held_out=0.1,
)
