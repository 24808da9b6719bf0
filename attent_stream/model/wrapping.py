"""Wrappers that training puts around a model."""

from torch._dynamo.eval_frame import OptimizedModule
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel


def unwrap(model: Module) -> Module:
    """The module inside of DDP, FSDP and torch.compile."""
    while isinstance(model, (DistributedDataParallel, FullyShardedDataParallel, OptimizedModule)):
        model = model._orig_mod if isinstance(model, OptimizedModule) else model.module
    return model


def is_sharded(model: Module) -> bool:
    """Whether a forward of the model needs the other ranks (FSDP 1 and 2, tensor parallelism)."""
    wrapped = any(
        isinstance(module, (FullyShardedDataParallel, FSDPModule)) for module in model.modules()
    )
    return wrapped or any(isinstance(param, DTensor) for param in model.parameters())


def is_compiled(model: Module) -> bool:
    """Whether torch.compile runs the forward of the model or of a module inside.

    It does so by a wrapper, by ``Module.compile`` or, as in Composer, by a replaced ``forward``.
    """
    return any(
        isinstance(module, OptimizedModule)
        or module._compiled_call_impl is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        for module in model.modules()
    )


def model_name(model: Module) -> str:
    """Class name of the network in a Hugging Face model or ComposerClassifier, for messages."""
    inner = unwrap(model)
    return type(getattr(inner, "model", getattr(inner, "module", inner))).__name__
