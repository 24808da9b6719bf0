"""Early exit, against models that are built with the first blocks only."""

import pytest
import torch
import torchvision
from block_models import IMAGES, LAYERS, TEXT, filled, images, pair, scores, text
from composer.models import ComposerClassifier

from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import Fidelity


@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_early_exit_is_the_model_built_so(name):
    batch = images() if name in IMAGES else text()
    for count in (1, 3):
        whole, small = pair(name, count)
        before = list(whole.state_dict())
        hooks = [len(module._forward_hooks) for module in whole.modules()]
        full = scores(whole, batch)
        for head in ("reference", None):
            got = scores(whole, batch, Fidelity(layers=count), head=head)
            torch.testing.assert_close(got, scores(small, batch), rtol=1e-5, atol=1e-6)
            assert not torch.allclose(got, full, rtol=1e-2)
        assert list(whole.state_dict()) == before and torch.equal(scores(whole, batch), full)
        assert [len(module._forward_hooks) for module in whole.modules()] == hooks
    assert torch.equal(scores(whole, batch, Fidelity(layers=LAYERS)), full)


def test_skipped_blocks_are_not_called():
    """FSDP gathers a block's parameters when it is called, so it gathers none of theirs."""
    model, _ = pair("llama", 1)
    called = []
    for index, block in enumerate(model.model.model.layers):
        block.register_forward_pre_hook(lambda module, args, index=index: called.append(index))
    scores(model, text(2), Fidelity(layers=2))
    assert set(called) == {0, 1}


def test_early_exit_of_a_sequential_and_after_a_fault():
    torch.manual_seed(0)
    make = torchvision.models.VisionTransformer
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "num_heads": 2,
        "hidden_dim": 32,
        "mlp_dim": 64,
        "num_classes": 5,
    }
    whole, small = filled(make(num_layers=3, **sizes)), make(num_layers=1, **sizes).eval()
    small.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key in small.state_dict()}
    )
    whole, small = (ComposerClassifier(model, num_classes=5).eval() for model in (whole, small))
    torch.testing.assert_close(scores(whole, images(), Fidelity(layers=1)), scores(small, images()))
    with pytest.raises(RuntimeError, match="no"), find_blocks(whole).first(1):
        raise RuntimeError("no")
    assert len({type(block) for block in find_blocks(whole).owner}) == 1


def test_activation_checkpointing_and_ddp_like_wrappers_change_nothing():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        apply_activation_checkpointing,
    )

    whole, small = pair("gpt2", 2)
    whole.model.gradient_checkpointing_enable()
    torch.testing.assert_close(scores(whole, text(), Fidelity(layers=2)), scores(small, text()))
    block = type(whole.model.transformer.h[0])
    apply_activation_checkpointing(whole, check_fn=lambda module: isinstance(module, block))
    torch.testing.assert_close(scores(whole, text(), Fidelity(layers=2)), scores(small, text()))
