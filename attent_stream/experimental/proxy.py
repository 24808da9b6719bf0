"""A small model that scores instead of the learner (``fidelity: {proxy: {...}}``).

It is given, or it is trained on the same lessons as the learner.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch.nn import Module
from torch.nn.utils import parameters_to_vector

from attent_stream.base.errors import FidelityError
from attent_stream.base.watch import collective
from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.config_sections import ModelConfig
from attent_stream.launch.models import build_model
from attent_stream.model.traits import Traits
from attent_stream.score.fidelity import check_integer, check_number


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """The settings of a proxy.

    Args:
        model: A folder with a Hugging Face model (``config.json`` and safetensors weights), the
            keys of a ``model`` section (``name``, ``architecture``, ``config_overrides``) for a
            model with random weights, or a ComposerModel.
        train: Whether it is trained on lessons.
        every: It is trained on one lesson batch in this many.
        lr: Learning rate of its AdamW.
        weight_decay: Weight decay of its AdamW.
    """

    model: Any
    train: bool = False
    every: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        composer_model = callable(getattr(self.model, "eval_forward", None))
        if not (isinstance(self.model, (str, Mapping)) or composer_model):
            raise FidelityError(
                "fidelity.proxy.model: expected a folder, the keys of a model section or a "
                f"ComposerModel, received {type(self.model).__name__}"
            )
        if not isinstance(self.train, bool):
            raise FidelityError(
                f"fidelity.proxy.train: expected true or false, received {self.train!r}"
            )
        check_integer("proxy.every", self.every)
        check_number("proxy.lr", self.lr, above=0.0)
        check_number("proxy.weight_decay", self.weight_decay, least=0.0)
        if isinstance(self.model, Mapping) and not self.train:
            raise FidelityError(
                "fidelity.proxy.train: expected true for a model that starts with random weights, "
                "received false"
            )

    def build(self, learner: Module, device: torch.device, *, seed: int) -> "Proxy":
        """Build the proxy; see ``Proxy``."""
        return Proxy(self, learner, device, seed=seed)


class Proxy:
    """A proxy and its optimizer. Every rank holds all of it, with the same weights.

    Args:
        settings: How it is built and trained.
        learner: Decides what kind of model a folder holds. It is not changed.
        device: Where the proxy runs.
        seed: Seeds random weights.

    Attributes:
        model: A ComposerModel in eval mode.
        trained: Whether it is trained on lessons.

    Raises:
        FidelityError: The model cannot be built.
    """

    def __init__(
        self, settings: ProxySettings, learner: Module, device: torch.device, *, seed: int
    ) -> None:
        self.model = other_model(settings.model, learner, device, seed=seed, key="fidelity.proxy")
        # In training too: its dropout would change the learner's random numbers.
        self.model.eval()
        self.trained = settings.train
        self._every = settings.every
        self._optimizer = None
        if settings.train:
            self._optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
            )

    def learns_from(self, batches: int) -> bool:
        """Whether it is trained on the batch that follows this many batches."""
        return self._optimizer is not None and batches % self._every == 0

    def learn(self, batch: Any) -> None:
        """Train one step on a batch of lessons on its device, with gradients averaged over ranks.

        All ranks must call this together.
        """
        with torch.enable_grad():
            loss = self.model.loss(self.model(batch), batch)
            loss = sum(loss) if isinstance(loss, (tuple, list)) else loss
            loss.backward()
        self._average()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer state of a trained proxy. Empty for a proxy that is not trained."""
        if self._optimizer is None:
            return {}
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            FidelityError: The state belongs to another proxy.
        """
        if self._optimizer is None or not state:
            return
        try:
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).split("\n")[0]
            raise FidelityError(
                f"fidelity.proxy: expected the proxy of the checkpoint, received another ({reason})"
            ) from error

    def _average(self) -> None:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        params = [param for param in self.model.parameters() if param.grad is not None]
        mean = parameters_to_vector([param.grad for param in params])
        with collective("the mean of the proxy's gradients"):
            dist.all_reduce(mean)
        mean /= dist.get_world_size()
        for param, grad in zip(
            params, mean.split([param.numel() for param in params]), strict=True
        ):
            param.grad.copy_(grad.view_as(param))


def other_model(
    model: Any, learner: Module, device: torch.device, *, seed: int, key: str
) -> Module:
    """Build a second model and leave the learner's random numbers unchanged.

    Args:
        model: A folder with a Hugging Face model, the keys of a ``model`` section, or a
            ComposerModel.
        learner: Decides what kind of model a folder holds. It is not changed.
        device: Where the model is put.
        seed: Seeds random weights.
        key: The setting's name, for errors.

    Raises:
        FidelityError: The model cannot be built.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _built(model, learner, key).to(device)


def _built(model: Any, learner: Module, key: str) -> Module:
    if isinstance(model, Module):
        return model
    if isinstance(model, str):
        if not os.path.isdir(model):
            raise FidelityError(
                f"{key}.model: expected a folder with a Hugging Face model, received {model!r}"
            )
        section = {"name": _kind(Traits.of(learner)), "pretrained": model}
    else:
        section = dict(model)
    try:
        return build_model(typed(section, ModelConfig, f"{key}.model"))
    except ConfigError as error:
        raise FidelityError(
            f"{key}: expected a model that can be built, received one that cannot: {error}"
        ) from error


def _kind(traits: Traits) -> str:
    if traits.forward_args is None:
        return "hf_image_classifier"
    return "hf_causal_lm" if traits.shift_labels else "hf_masked_lm"
