"""Which errors mean that memory ran out."""

import torch

from attent_stream.model.device_memory import out_of_memory


def test_out_of_memory():
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("CUDA out of memory on a different rank"))
    assert not out_of_memory(RuntimeError("no kernel")) and not out_of_memory(MemoryError("RAM"))
