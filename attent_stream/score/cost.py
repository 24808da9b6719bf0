"""The cost of a way of scoring, in multiplications.

It is counted and not timed, so that a decision by it is the same on every rank, on every machine
and after a resume.
"""

import math
from dataclasses import dataclass

from torch.nn import Embedding, Linear, Module
from torch.nn.modules.conv import _ConvNd

from attent_stream.model.wrapping import unwrap
from attent_stream.score.early_exit import Blocks
from attent_stream.score.fidelity import Fidelity

_BF16 = 0.5  # time of bf16 over fp32, roughly, where the hardware has bf16


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """The cost of one forward, in multiplications per token.

    Args:
        blocks: Number of equal blocks.
        block: Weights in the matrix products of each block.
        width: Width of the hidden states. Attention over T tokens adds ``T width`` (scores and
            values, half of them masked). 0 where attention is not counted, as for images.
        head: Weights of the output head, for each token that goes through it. 0 where it is not
            counted.
        full_precision: Whether the full score is computed in fp32, so that bf16 would be faster.
    """

    blocks: int
    block: int
    width: int
    head: int
    full_precision: bool

    @property
    def total(self) -> float:
        """Multiplications per token of a full forward, without attention."""
        return self._multiplications(Fidelity(), 0)

    def of(self, way: Fidelity, length: int) -> float:
        """Cost of a way over that of the full score, for samples of ``length`` tokens."""
        full = self._multiplications(Fidelity(), length)
        # Nothing is multiplied in a model of tables alone.
        return self._multiplications(way, length) / full if full else 1.0

    def _multiplications(self, way: Fidelity, length: int) -> float:
        seen = (way.resolution or 1.0) ** 2 * (way.patches or 1.0)
        scored = 1.0
        if way.tokens is not None and way.tokens.take == "first":
            seen *= way.tokens.share
        elif way.tokens is not None:
            scored = way.tokens.share
        through = (way.layers or self.blocks) * (self.block + self.width * length * seen)
        precision = _BF16 if way.precision is not None and self.full_precision else 1.0
        return seen * (through + self.head * scored) * precision


def model_cost(
    model: Module, blocks: Blocks | None, head: Module | None, *, full_precision: bool
) -> ModelCost:
    """Count a model, wrapped and sharded or not, by the shapes its modules were made with.

    Args:
        model: The model. It is not changed.
        blocks: Its blocks. None: it counts as one block.
        head: Its output head for tokens, or None.
        full_precision: Whether it is scored in fp32.
    """
    head_weights = width = 0
    if head is not None:
        head_weights = products(head, embeds=True)
        width = getattr(head, "in_features", None) or getattr(head, "embedding_dim", 0)
    if blocks is None:
        count, block, width = 1, products(unwrap(model)) - head_weights, 0
    else:
        count, block = len(blocks), products(blocks.entry)
    return ModelCost(
        blocks=count, block=block, width=width, head=head_weights, full_precision=full_precision
    )


def products(module: Module, *, embeds: bool = False) -> int:
    """Count the weights that a token is multiplied with, with those of embeddings if asked for."""
    total = 0
    for one in module.modules():
        if isinstance(one, Linear):
            total += one.in_features * one.out_features
        elif isinstance(one, _ConvNd):
            kernel = math.prod(one.kernel_size)
            total += one.in_channels * one.out_channels * kernel // one.groups
        elif isinstance(one, Embedding):
            total += one.num_embeddings * one.embedding_dim if embeds else 0
        elif hasattr(one, "nx") and hasattr(one, "nf"):  # GPT-2's Conv1D
            total += one.nx * one.nf
        elif not any(True for _ in one.children()):
            total += sum(param.numel() for param in one.parameters() if param.ndim > 1)
    return total
