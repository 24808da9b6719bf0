"""Out-of-memory errors."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether the device ran out of memory, on this rank or, by Composer's FSDP hooks, another."""
    return isinstance(error, torch.OutOfMemoryError) or "CUDA out of memory" in str(error)
