"""A bench YAML as frozen dataclasses; a field is a key, its default is what a missing key means."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attent_stream.launch.config import read_yaml
from attent_stream.launch.config_check import ConfigError, typed

COSTS = ("steps", "cpu", "seconds")
PLAIN, RANDOM = "plain", "random"


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A text corpus made of ``STREAM.train.jsonl.zst`` and ``STREAM.valid.jsonl.zst`` of the data
    folder, or, without a folder, of Python's standard library (one stream, ``stdlib``).

    Args:
        streams: Name of a stream -> MB (1e6 bytes of UTF-8) of its documents, drawn, that are
            trained on.
        seq_len: Tokens a sample.
        vocab_size: Of the tokenizer trained on the training text.
        held_out: MB of each stream's held-out text, at most 2,000 characters a document.
        noise: Share of *planted* characters among all that are trained on, in [0, 1): half shuffled
            words, half boilerplate, in every stream. Nothing is planted into what is held out.
        clean: Drop documents under 200 characters and those of which half of the 32-word runs have
            been seen before.
        seed: Of what is drawn and planted.
    """

    streams: dict[str, float]
    seq_len: int = 128
    vocab_size: int = 2048
    held_out: float = 0.2
    noise: float = 0.0
    clean: bool = False
    seed: int = 17

    def __post_init__(self) -> None:
        if not self.streams:
            raise ValueError("expected at least one stream, received none")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise: expected a share in [0, 1), received {self.noise}")


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """An image corpus made of ``cifar10_jpeg.tar.zst`` (``train/CLASS/*`` and ``test/CLASS/*``) of
    the data folder, or, without a folder, of drawn shapes (said so in every result).

    Args:
        images: Trained on, the same number of each class as far as it goes.
        held_out: Evaluated on.
        wrong: Share of the training images whose label is replaced by another class's, in [0, 1).
        size: Pixels, height and width.
        seed: Of the choice of images and of the wrong labels.
    """

    images: int
    held_out: int = 1000
    wrong: float = 0.0
    size: int = 32
    seed: int = 17

    def __post_init__(self) -> None:
        if not 0 <= self.wrong < 1:
            raise ValueError(f"wrong: expected a share in [0, 1), received {self.wrong}")


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """What a fine-tuning task starts from: the base's model trained plainly, once, on other text of
    the same tokenizer.

    Args:
        data: Its streams; ``vocab_size`` and ``seq_len`` must be the task's.
        steps: Optimizer steps.
        lr: Peak learning rate.
    """

    data: TextData
    steps: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One way to train.

    Args:
        lengths: Optimizer steps as shares of the task's ``steps``, each a run with the learning
            rate decayed over it.
        algorithms: Added to the base's; the one difference between arms.
        cost: How it is counted, where not as the bench counts (``BenchConfig.cost``).
        control: The arm that chooses at random at the same schedule.
        note: One sentence for the page.
    """

    lengths: list[float]
    algorithms: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: Literal["steps", "cpu", "seconds"] | None = None
    control: str = RANDOM
    note: str = ""

    def __post_init__(self) -> None:
        if not self.lengths or any(not 0 < length <= 4 for length in self.lengths):
            raise ValueError(
                f"lengths: expected shares of the task's steps in (0, 4], received {self.lengths}"
            )
        if len(set(self.lengths)) != len(self.lengths):
            raise ValueError(f"lengths: expected different ones, received {self.lengths}")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """One task and its arms.

    Args:
        task: Short name, in every result.
        title: What is trained on what, for people.
        base: A training YAML's tree without data places, ``max_duration``, seed, learning rate and
            teacher.
        steps: Optimizer steps of plain training.
        seeds: One run of every arm and length each: weights, order and draws.
        arms: By name; ``plain`` must be there, with length 1 its longest.
        text, images: The data: exactly one of them.
        pretrain: Fine-tuning starts from this.
        metric: Composer's name of the held-out measure.
        higher: Whether more of it is better.
        learning_rates: Peaks tried for plain, at ``sweep_length`` of the steps with the first seed;
            the best is every arm's.
        sweep_length: Share of the steps.
        evals: Held-out evaluations in a run; not part of its time.
        cost: The headline: ``steps`` (optimizer steps + teaching, by the time ratio measured within
            the run), ``cpu`` (processor seconds of the training process over those of a plain
            step), ``seconds`` (wall).
    """

    task: str
    base: dict[str, Any]
    steps: int
    arms: dict[str, ArmConfig]
    title: str = ""
    text: TextData | None = None
    images: ImageData | None = None
    pretrain: Pretrain | None = None
    seeds: list[int] = field(default_factory=lambda: [17, 18, 19])
    metric: str = "LanguageCrossEntropy"
    higher: bool = False
    learning_rates: list[float] = field(default_factory=lambda: [1e-3])
    sweep_length: float = 0.4
    evals: int = 6
    cost: Literal["steps", "cpu", "seconds"] = "steps"

    def __post_init__(self) -> None:
        if (self.text is None) == (self.images is None):
            raise ValueError("expected exactly one of text and images")
        if PLAIN not in self.arms or max(self.arms[PLAIN].lengths) != 1:
            raise ValueError(f"arms: expected an arm {PLAIN!r} whose longest length is 1")
        if self.arms[PLAIN].algorithms:
            raise ValueError(
                "arms.plain.algorithms: expected none, what all arms share belongs to base"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected different ones, received {self.seeds}")
        if not self.learning_rates or self.steps < 1 or self.evals < 1:
            raise ValueError("learning_rates, steps and evals: expected at least one each")
        if self.pretrain is not None and (
            self.text is None
            or (self.pretrain.data.vocab_size, self.pretrain.data.seq_len)
            != (self.text.vocab_size, self.text.seq_len)
        ):
            raise ValueError(
                "pretrain.data: expected the vocab_size and seq_len of the task's text"
            )


def load_bench(path: str | Path) -> BenchConfig:
    """Read a bench YAML; ``base`` may be the path of a training YAML, relative to it, and
    ``base_changes`` has keys that are otherwise there. Raises ConfigError.
    """
    from omegaconf import OmegaConf

    tree = _tree(Path(path))
    if isinstance(tree.get("base"), str):
        tree["base"] = _tree(Path(path).parent / tree["base"])
    changes = tree.pop("base_changes", {})
    if not isinstance(changes, dict):
        raise ConfigError(
            f"{path}: base_changes: expected a mapping of keys of a training YAML, received "
            f"{changes!r}"
        )
    if isinstance(tree.get("base"), dict):
        tree["base"] = OmegaConf.to_container(OmegaConf.merge(tree["base"], changes))
    return typed(tree, BenchConfig)


def _tree(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(read_yaml(path), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: cannot be resolved, {str(error).splitlines()[0]}") from error
