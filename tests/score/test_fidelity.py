"""Scoring with less of a sample or of the model, against models and samples that are so small to
begin with.
"""

import numpy as np
import pytest
import torch
import torchvision
import transformers
from composer.models import ComposerClassifier, HuggingFaceModel
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.base.errors import FidelityError, ScoreError
from attent_stream.experimental.patches import drawn_patches
from attent_stream.launch.models import Logits
from attent_stream.model import reference
from attent_stream.score.build import build_scorer
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, parse_fidelity
from attent_stream.score.microbatches import score_batch
from attent_stream.score.token_positions import strided_positions

T = transformers
VOCAB, LENGTH, LAYERS = 61, 24, 4
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
# name -> (model class, its configuration with so many blocks)
TEXT = {
    "llama": (T.LlamaForCausalLM, lambda n: T.LlamaConfig(**GROUPED, num_hidden_layers=n)),
    "gpt2": (
        T.GPT2LMHeadModel,
        lambda n: T.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=n, n_head=2),
    ),
    "gpt_neox": (T.GPTNeoXForCausalLM, lambda n: T.GPTNeoXConfig(**SIZES, num_hidden_layers=n)),
    "mpt": (
        T.MptForCausalLM,
        lambda n: T.MptConfig(vocab_size=VOCAB, d_model=32, n_heads=2, n_layers=n, max_seq_len=64),
    ),
    "gemma2": (
        T.Gemma2ForCausalLM,
        lambda n: T.Gemma2Config(**GROUPED, head_dim=16, num_hidden_layers=n),
    ),
    "opt": (
        T.OPTForCausalLM,
        lambda n: T.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=n,
            num_attention_heads=2,
            max_position_embeddings=64,
            word_embed_proj_dim=16,
        ),
    ),
    "bert": (T.BertForMaskedLM, lambda n: T.BertConfig(**SIZES, num_hidden_layers=n)),
}
IMAGES = {
    "vit": (T.ViTForImageClassification, lambda n: T.ViTConfig(**IMAGE, num_hidden_layers=n)),
    "deit": (T.DeiTForImageClassification, lambda n: T.DeiTConfig(**IMAGE, num_hidden_layers=n)),
}


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """With weights large enough for scores that differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                * (0.3 if parameter.ndim > 1 else 1.0)
            )
    return model.eval()


def pair(
    name: str, count: int
) -> tuple[HuggingFaceModel | ComposerClassifier, HuggingFaceModel | ComposerClassifier]:
    """A model of ``LAYERS`` blocks, and one built with the first ``count`` of them."""
    kind, config = (TEXT | IMAGES)[name]
    whole, small = filled(kind(config(LAYERS))), kind(config(count)).eval()
    small.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key in small.state_dict()}
    )
    if name in IMAGES:
        return tuple(
            ComposerClassifier(Logits(model), num_classes=5).eval() for model in (whole, small)
        )
    shift = name != "bert"
    return tuple(
        HuggingFaceModel(m, tokenizer=None, use_logits=True, shift_labels=shift).eval()
        for m in (whole, small)
    )


def text(samples: int = 5, length: int = LENGTH) -> dict:
    """Right-padded."""
    ids = torch.randint(1, VOCAB, (samples, length), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(length) < torch.tensor([24, 7, 3, 24, 15])[:samples, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}


def images(samples: int = 5, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 3, side, side, generator=generator), torch.arange(samples) % 5


def scores(
    model,
    batch,
    fidelity: Fidelity = FULL,
    *,
    head: str | None = "reference",
    draw=(),
    score="loss",
) -> torch.Tensor:
    return score_batch(
        build_scorer(score, model, head=head, fidelity=fidelity), model, batch, 2, draw
    )


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
    """So FSDP, which gathers a block's parameters when it is called, gathers none of theirs."""
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


@pytest.mark.parametrize(
    ("model", "fidelity", "said"),
    [
        ("gpt2", Fidelity(layers=9), "expected 1 to 4, the model's blocks, received 9"),
        ("gpt2", Fidelity(patches=0.5), "images only, received a language model"),
        ("vit", parse_fidelity({"tokens": {"share": 0.5}}), "expected a language model"),
        ("resnet", Fidelity(layers=1), "list of equal blocks, received ResNet"),
        ("resnet", Fidelity(patches=0.5), "list of equal blocks, received ResNet"),
        ("t5", Fidelity(layers=1), "received an encoder-decoder"),
        ("compiled", Fidelity(layers=1), "not compiled"),
    ],
)
def test_what_a_model_cannot_is_refused_when_the_scorer_is_built(model, fidelity, said):
    if model == "resnet":
        made = ComposerClassifier(torchvision.models.resnet18(num_classes=5), num_classes=5)
    elif model == "t5":
        sizes = {
            "vocab_size": VOCAB,
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
        }
        made = HuggingFaceModel(
            T.T5ForConditionalGeneration(T.T5Config(**sizes)), tokenizer=None, use_logits=True
        )
    else:
        made = pair("gpt2" if model == "compiled" else model, 1)[0]
    if model == "compiled":
        made = torch.compile(made)
    with pytest.raises(FidelityError, match=said):
        build_scorer("loss", made, head=None, fidelity=fidelity)


def test_a_callable_scores_by_itself():
    with pytest.raises(
        FidelityError, match="expected full for a score that is a callable, received layers_1"
    ):
        build_scorer(lambda model, batch: batch, pair("gpt2", 1)[0], fidelity=Fidelity(layers=1))


@pytest.mark.parametrize("head", ["reference", None])
def test_strided_tokens_are_the_mean_over_some(head):
    model, _ = pair("llama", 1)
    batch = text()
    batch["labels"][1, :4] = -100  # an instruction that is not learnt
    labels = torch.cat([batch["labels"][:, 1:], torch.full((5, 1), -100)], 1)
    with torch.no_grad():
        nll, residual_sq = reference.token_scores(model(batch).logits.double(), labels)
    some = strided_positions(labels, 0.3)
    for name, values, finish in (
        ("loss", nll, lambda x: x),
        ("residual", residual_sq, lambda x: x.sqrt()),
    ):
        want = [values[i, row[row >= 0]].mean() for i, row in enumerate(some)]
        got = scores(
            model, batch, parse_fidelity({"tokens": {"share": 0.3}}), head=head, score=name
        )
        torch.testing.assert_close(got, finish(torch.stack(want)).float(), rtol=1e-5, atol=1e-6)


@given(
    st.lists(st.lists(st.booleans(), min_size=17, max_size=17), min_size=1, max_size=4),
    st.sampled_from([0.05, 0.125, 0.3, 0.9]),
)
def test_strided_positions(valid, share):
    valid = np.array(valid)
    got = strided_positions(torch.where(torch.from_numpy(valid), 7, -100), share).numpy()
    assert got.shape == (len(valid), int(np.ceil(round(share * 17, 6))))
    for row, has in zip(got, valid, strict=True):
        labelled = np.flatnonzero(has)
        count = int(np.ceil(round(share * len(labelled), 6)))
        # The middle one of each of ``count`` equal parts.
        assert row.tolist() == [
            labelled[(2 * i + 1) * len(labelled) // (2 * count)] for i in range(count)
        ] + [-1] * (len(row) - count)
        assert (np.diff(row[:count]) > 0).all()


def test_first_tokens_are_a_shorter_sample():
    model, _ = pair("mpt", 1)
    batch = text()
    short = {key: value[:, :6] for key, value in batch.items()}
    torch.testing.assert_close(
        scores(model, batch, parse_fidelity({"tokens": {"share": 0.25, "take": "first"}})),
        scores(model, short),
    )
    pairs = batch | {"attention_mask": torch.ones(5, 1, LENGTH, LENGTH)}
    with pytest.raises(ScoreError, match="cannot cut 'attention_mask' of shape"):
        scores(model, pairs, parse_fidelity({"tokens": {"share": 0.25, "take": "first"}}))


def test_parts_compose():
    whole, small = pair("gpt_neox", 2)
    half = {"share": 0.5, "take": "strided"}
    got = scores(whole, text(), parse_fidelity({"layers": 2, "tokens": half}))
    torch.testing.assert_close(got, scores(small, text(), parse_fidelity({"tokens": half})))
    bf16 = scores(
        whole, text(), parse_fidelity({"layers": 2, "tokens": half, "precision": "amp_bf16"})
    )
    assert not torch.equal(got, bf16)
    torch.testing.assert_close(got, bf16, rtol=5e-2, atol=5e-2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(scores(small, text(), parse_fidelity({"tokens": half})), bf16)


def test_resolution_is_the_model_given_small_images():
    model, _ = pair("vit", 1)
    pixels, target = images()
    small = torch.nn.functional.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = model.module.model(pixel_values=small, interpolate_pos_encoding=True).logits
    want = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(scores(model, (pixels, target), Fidelity(resolution=0.45)), want)
    wrapped = HuggingFaceModel(model.module.model, tokenizer=None, use_logits=True).eval()
    torch.testing.assert_close(
        scores(wrapped, {"pixel_values": pixels, "labels": target}, Fidelity(resolution=0.45)), want
    )
    strict = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=5,
    )
    with pytest.raises(ScoreError, match="fidelity resolution_0.5 does not work with this model"):
        scores(ComposerClassifier(strict, num_classes=5).eval(), images(), Fidelity(resolution=0.5))
    net = ComposerClassifier(torchvision.models.resnet18(num_classes=5), num_classes=5).eval()
    torch.testing.assert_close(
        scores(net, (pixels, target), Fidelity(resolution=0.5)), scores(net, (small, target))
    )


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_patches_are_a_vit_without_the_others(name):
    model, _ = pair(name, 1)
    inner = model.module.model
    pixels, target = images()
    before = torch.random.get_rng_state()
    got = scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(got, scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 1)))
    assert not torch.equal(
        got, scores(model, (pixels, target), Fidelity(patches=0.25), draw=(3, 2))
    )
    prefix = 1 if name == "vit" else 2
    kept = [*range(prefix), *(prefix + drawn_patches(16, 0.25, (3, 1)))]
    base = getattr(inner, name)
    with torch.no_grad():  # the model's parts in turn, by hand
        hidden = base.embeddings(pixels)[:, kept]
        for layer in base.encoder.layer:
            hidden = layer(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        logits = inner.classifier(base.layernorm(hidden)[:, 0])
    torch.testing.assert_close(
        got, torch.nn.functional.cross_entropy(logits, target, reduction="none")
    )


def test_drawn_patches():
    assert len(drawn_patches(196, 0.25, (1,))) == 49 and len(drawn_patches(16, 0.3, (1,))) == 5
    seen = np.bincount(
        np.concatenate([drawn_patches(16, 0.25, (1, window)) for window in range(2000)])
    )
    assert abs(seen / 500 - 1).max() < 0.2


def test_settings():
    assert parse_fidelity("full") is FULL and parse_fidelity("auto") == AutoFidelity()
    assert parse_fidelity({}) == FULL and FULL.name == "full"
    way = parse_fidelity({"layers": 2, "tokens": {"share": 0.5}, "precision": "amp_bf16"})
    assert way.name == "layers_2_strided_0.5_amp_bf16" and parse_fidelity(way) is way
    auto = parse_fidelity({"auto": {"agreement": 0.8, "ways": [{"layers": 1}, {"layers": 2}]}})
    assert auto.ways == (Fidelity(layers=1), Fidelity(layers=2)) and auto.every == 16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "fast",
            "fidelity: expected full, auto, or a mapping of layers, tokens, .*, received 'fast'",
        ),
        (0.5, "received 0.5"),
        ({"layer": 2}, r"received 'layer' \(did you mean layers\?\)"),
        ({"layers": 0}, "fidelity.layers: expected an integer of at least 1, received 0"),
        ({"layers": True}, "received True"),
        ({"layers": 1.5}, "received 1.5"),
        ({"tokens": 0.5}, "fidelity.tokens: expected a mapping of share, take, received 0.5"),
        ({"tokens": {}}, "fidelity.tokens: expected share, received nothing"),
        ({"tokens": {"share": 1.0}}, "expected a number above 0 and below 1, received 1.0"),
        (
            {"tokens": {"share": float("nan")}},
            "tokens.share: expected a number above 0, received nan",
        ),
        (
            {"tokens": {"share": 0.5, "take": "last"}},
            "expected one of strided, first, received 'last'",
        ),
        (
            {"resolution": 112},
            "fidelity.resolution: expected a number above 0 and below 1, received 112",
        ),
        ({"patches": -0.5}, "fidelity.patches"),
        ({"patches": 0.5, "tokens": {"share": 0.5}}, "received both"),
        ({"precision": "fp8"}, "expected one of amp_bf16, received 'fp8'"),
        ({"proxy": {"model": 3}}, "fidelity.proxy.model: expected a folder, .*, received int"),
        (
            {"proxy": {"model": {"name": "hf_causal_lm"}}},
            "proxy.train: expected true for a model that starts with random weights",
        ),
        (
            {"proxy": {"model": "x", "lr": 0}},
            "fidelity.proxy.lr: expected a number above 0, received 0",
        ),
        (
            {"proxy": {"model": "x", "every": 0}},
            "fidelity.proxy.every: expected an integer of at least 1, received 0",
        ),
        ({"auto": {}, "layers": 1}, "received auto with layers"),
        ({"auto": {"agreement": 1}}, "fidelity.auto.agreement"),
        ({"auto": {"samples": 4}}, "integer of at least 32, received 4"),
        ({"auto": {"ways": []}}, "at least one way"),
        ({"auto": {"ways": [{}]}}, "each less than full"),
        ({"auto": {"ways": [{"layers": 1}, {"layers": 1}]}}, "each way once"),
        ({"auto": {"ways": [{"layer": 1}]}}, r"fidelity.auto.ways\[0\]: expected layers"),
    ],
)
def test_bad_settings_are_told_in_one_sentence(value, said):
    with pytest.raises(FidelityError, match=said) as caught:
        parse_fidelity(value)
    assert "\n" not in str(caught.value)
