"""The demo's settings, checked once when they are made."""

from dataclasses import dataclass, replace

ARMS = ("uniform", "random", "published", "taught")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What every arm of the demo has in common, and what AtteNT does in the published one.

    Args:
        steps: Lesson batches of each arm.
        eval_every: Lesson batches from one held-out evaluation to the next.
        eval_samples: Held-out samples, at most.
        batch_size: Samples in a batch.
        seq_len: Tokens in a sample.
        vocab_size: Tokens of the tokenizer.
        width: Of the model's hidden states; a multiple of 32.
        layers: Of the model.
        lr: Peak learning rate; it decays to 0 at the last step.
        warmup: Batches until the learning rate's peak; nothing is taught before.
        window: Candidate batches per window.
        keep: Share of a window's candidates that become lessons, in the published and random arms.
        score: Of ``AtteNT``, in the published arm.
        select: Of ``AtteNT``, in the published arm.
        held_out: Share of files held out.
        every_file: Use every n-th file of the standard library.
        seed: Of weights, order and draws.

    Raises:
        ValueError: One out of range.
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
        """The same with another length, warmed up and evaluated at the same shares of it."""
        scale = steps / self.steps
        return replace(
            self,
            steps=steps,
            warmup=max(1, round(self.warmup * scale)),
            eval_every=max(1, round(self.eval_every * scale)),
        )


FULL = DemoSettings()
# A minute on one core, to see that everything works.
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
