"""When memory runs out."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory has run out, here or (Composer's FSDP hooks)
    on another rank.
    """
    return isinstance(error, torch.OutOfMemoryError) or "CUDA out of memory" in str(error)
