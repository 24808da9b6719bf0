"""Early exit: a forward that runs a model's first blocks, then its own final norm and head.

A transformer is a list of equal blocks in a module whose forward calls them in order. During a
scoring forward, the blocks after the first n return what the n-th returned (a tensor, a tuple). The
rest of the model's forward runs as usual. FSDP does not gather the parameters of skipped blocks, as
they are not called (``forward_prefetch`` of FSDP1 and explicit prefetching of FSDP2 still gather
those of the first one).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.nn import Module, ModuleList, Sequential

from attent_stream.base.errors import FidelityError
from attent_stream.model.wrapping import is_compiled, model_name, unwrap

_LEAST_SHARE = 0.1  # of a model's parameters that its blocks must hold


class _Skipped(Module):
    """Replaces a block and returns what the last block that ran returned."""

    def __init__(self, block: Module, returned: list[Any]) -> None:
        super().__init__()
        # A submodule, so that FSDP's first forward finds it among the model's modules
        self.block = block
        self._returned = returned

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # some models read a block's kind of attention before they call it
            return getattr(super().__getattr__("block"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._returned:
            raise FidelityError(
                "fidelity.layers: expected the model to call its blocks in turn, received a call "
                "of a later one"
            )
        return self._returned[-1]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A model's equal blocks.

    Args:
        owner: The list of blocks that the model's forward calls in order.
    """

    owner: ModuleList | Sequential

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def entry(self) -> Module:
        """The first block."""
        return self.owner[0]

    @contextmanager
    def first(self, count: int) -> Iterator[None]:
        """Run only the first ``count`` blocks in the model's forwards inside the context.

        Raises:
            FidelityError: The model has fewer blocks, or ``count`` is not positive.
        """
        if not 1 <= count <= len(self):
            raise FidelityError(
                f"fidelity.layers: expected 1 to {len(self)} as the model has so many, received "
                f"{count}"
            )
        returned: list[Any] = []

        def remember(module: Module, args: tuple, output: Any) -> None:
            returned[:] = [output]

        names = list(self.owner._modules)
        skipped = {name: self.owner._modules[name] for name in names[count:]}
        hook = self.owner[count - 1].register_forward_hook(remember)
        try:
            for name, block in skipped.items():
                self.owner._modules[name] = _Skipped(block, returned)
            yield
        finally:
            self.owner._modules.update(skipped)
            hook.remove()


def find_blocks(model: Module) -> Blocks:
    """Find the equal blocks of a model, wrapped or not: its list of them with most parameters.

    Equal blocks have the same class, and parameters of the same names and shapes. So LLaMA, GPT-2,
    GPT-NeoX, MPT and ViTs of transformers, llm-foundry, timm and torchvision are recognized.

    Raises:
        FidelityError: The model is compiled, an encoder-decoder, or has no such list.
    """
    inner = unwrap(model)
    if is_compiled(model):
        raise FidelityError(
            "fidelity.layers: expected a model that is not compiled, received one: leave "
            "compile_config away"
        )
    config = getattr(inner, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise FidelityError(
            "fidelity.layers: expected a model with one stack of blocks, received an "
            "encoder-decoder"
        )
    best, most = None, 0
    for module in inner.modules():
        if isinstance(module, (ModuleList, Sequential)) and len(module) > 1 and _alike(module):
            size = _size(module)
            if size > most:
                best, most = module, size
    if best is None or most < _LEAST_SHARE * _size(inner):
        raise FidelityError(
            "fidelity.layers: expected a model that is a list of equal blocks, received "
            f"{model_name(model)}, which is none"
        )
    return Blocks(owner=best)


def _alike(modules: ModuleList | Sequential) -> bool:
    kinds = Counter(
        (
            type(_core(module)),
            tuple((name, tuple(param.shape)) for name, param in module.named_parameters()),
        )
        for module in modules
    )
    return len(kinds) == 1


def _core(module: Module) -> Module:
    """The block inside wrappers of sharding and activation checkpointing."""
    while True:
        inner = unwrap(getattr(module, "_checkpoint_wrapped_module", module))
        if inner is module:
            return module
        module = inner


def _size(module: Module) -> int:
    return sum(param.numel() for param in module.parameters())
