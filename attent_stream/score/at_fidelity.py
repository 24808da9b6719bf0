"""How candidates are scored in training: in full, in one cheaper way, by a proxy, or in the way
that is found to be good enough.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Conv2d, Module

from attent_stream.base.errors import FidelityError
from attent_stream.experimental.proxy import Proxy
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.model.reading import Reading
from attent_stream.model.vision import patch_embedding
from attent_stream.model.wrapping import model_name, unwrap
from attent_stream.score.auto import AutoScoring, usual_ways
from attent_stream.score.cost import ModelCost, model_cost
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import AutoFidelity, Fidelity
from attent_stream.score.fitting import FittingScorer
from attent_stream.score.scorer import build_scorer

log = logging.getLogger(__name__)


class ScorerAtFidelity:
    """Scores candidates at a fidelity.

    Args:
        score: See ``build_scorer``.
        model: The learner as training has it (wrapped).
        head: See ``build_scorer``.
        fidelity: How much is looked at.
        device: Where the learner is.
        full_precision: Whether training is in fp32.
        gather: This rank's values -> all ranks', as ``gather_ranks``.
        ranks: How many ranks score different samples.
        seed: Of a proxy's weights and of what is drawn.
        keep: Share of the candidates that become lessons, from which a proxy may learn.

    Attributes:
        model: The model that scores: the learner, or a proxy.

    Raises:
        FidelityError: The model cannot be scored at this fidelity.
        ScoreError: See ``build_scorer``.
    """

    def __init__(
        self,
        score: str | Callable[[Module, Any], Tensor],
        model: Module,
        *,
        head: str | None,
        fidelity: Fidelity | AutoFidelity,
        device: torch.device,
        full_precision: bool,
        gather: Callable[[Tensor], NDArray],
        ranks: int,
        seed: int,
        keep: float = 1.0,
    ) -> None:
        self.model = model
        self._proxy: Proxy | None = None
        self._proxy_cost = 1.0  # of a full forward of the proxy, in those of the learner
        self._learning_cost = 0.0  # of a proxy, a candidate, in the same
        self._auto: AutoScoring | None = None
        self._seed = seed
        self._fidelity = fidelity
        self._model_cost = _counted(model, full_precision)
        if isinstance(fidelity, AutoFidelity):
            full = FittingScorer(build_scorer(score, model, head=head), model)
            ways = {
                way: FittingScorer(build_scorer(score, model, head=head, fidelity=way), model)
                for way in fidelity.ways or _usual(model)
            }
            gpu = device.type == "cuda"
            self._auto = AutoScoring(
                fidelity, full, ways, self._model_cost, gather=gather, ranks=ranks, gpu=gpu
            )
            self._scoring: AutoScoring | FittingScorer = self._auto
            return
        if fidelity.proxy is not None:
            self._proxy = Proxy(fidelity.proxy, model, device, seed=seed)
            self.model = self._proxy.model
            self._proxy_cost = _counted(self.model, full_precision).total / max(
                1, self._model_cost.total
            )
            if self._proxy.trained:  # a step, three forwards, on one lesson batch in so many
                self._learning_cost = 3 * keep * self._proxy_cost / fidelity.proxy.every
        self._scoring = FittingScorer(
            build_scorer(score, self.model, head=head, fidelity=fidelity), self.model
        )

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Score by this reading of the model's outputs, and split batches in this way, from now
        on.
        """
        self._scoring.read_by(reading, form)

    @property
    def sharded(self) -> bool:
        """Whether a forward of the model needs the other ranks."""
        return self._scoring.sharded

    @property
    def cost(self) -> float:
        """Of scoring one candidate now, in full forwards of the learner: counted, so the same on
        every rank and after a resume.

        A fixed fidelity's leaves out attention, which depends on how long samples are. A proxy's
        learning is counted in.
        """
        if self._auto is not None:
            return self._auto.cost
        return self._proxy_cost * self._model_cost.of(self._fidelity, 0) + self._learning_cost

    def __call__(self, batch: Any, microbatch: int, window: tuple[int, int]) -> Tensor:
        """Scores of candidates, float32 of shape (B,); see ``FittingScorer``.

        Args:
            batch: On the learner's device.
            microbatch: Samples at once.
            window: Epoch and index of the window that they are of; seeds what is drawn.
        """
        return self._scoring(batch, microbatch, (self._seed, *window))

    def learns_from(self, batches: int) -> bool:
        """Whether there is a proxy that learns from the batch after so many."""
        return self._proxy is not None and self._proxy.learns_from(batches)

    def learn(self, batch: Any) -> None:
        """Let the proxy learn from a batch of lessons; all ranks call it together, where
        ``learns_from`` says so.
        """
        self._proxy.learn(batch)

    @property
    def learns(self) -> bool:
        """Whether there is a proxy that learns."""
        return self._proxy is not None and self._proxy.trained

    def window_chosen(self, keep: float) -> dict[str, float]:
        """Say that a scored window is chosen, with this share kept; metrics by name, empty where
        nothing was measured.
        """
        if self._auto is None:
            return {}
        metrics = {}
        for one in self._auto.window_chosen(keep):
            for name in ("spearman", "overlap", "cost", "time"):
                metrics[f"{one.way.name}/{name}"] = getattr(one, name)
                if one.way == self._auto.way:
                    metrics[name] = getattr(one, name)
        if metrics and "cost" not in metrics:
            metrics |= {"spearman": 1.0, "overlap": 1.0, "cost": 1.0, "time": 1.0}  # the full score
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What ``auto`` has decided and a proxy has learnt; the same on all ranks."""
        if self._auto is not None:
            return {"auto": self._auto.state_dict()}
        return {"proxy": self._proxy.state_dict()} if self.learns else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state; that of another kind of fidelity is left."""
        if self._auto is not None and "auto" in state:
            self._auto.load_state_dict(state["auto"])
        if self.learns and "proxy" in state:
            self._proxy.load_state_dict(state["proxy"])


def _usual(model: Module) -> tuple[Fidelity, ...]:
    head = _head(model)
    blocks = _found(find_blocks, model)
    patches = blocks is not None and _found(patch_embedding, model) is not None
    images = any(isinstance(module, Conv2d) for module in unwrap(model).modules())
    ways = usual_ways(text=head is not None, blocks=blocks, patches=patches, images=images)
    if not ways:
        raise FidelityError(
            "fidelity: expected auto for a model of equal blocks, of tokens or of images, "
            f"received {model_name(model)}: name "
            "the ways to try, or leave fidelity at full"
        )
    return ways


def _counted(model: Module, full_precision: bool) -> ModelCost:
    return model_cost(
        model, _found(find_blocks, model), _head(model), full_precision=full_precision
    )


def _found(find: Callable[[Module], Any], model: Module) -> Any:
    try:
        return find(model)
    except FidelityError as reason:
        log.debug("Not tried: %s.", reason)
        return None


def _head(model: Module) -> Module | None:
    try:
        return find_head(model).module
    except HeadError:
        return None
