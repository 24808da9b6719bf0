"""Which module is the output head, and what happens to the logits after it."""

import pytest
import torch
from head_models import T, build, text, wrapped
from headless_models import Composed, Tiny, both, said

from attent_stream.base.errors import ScoreError
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


@pytest.mark.parametrize(
    "config, after",
    [
        ({}, (1.0, None)),
        ({"logit_scale": 0.5}, (0.5, None)),
        ({"logit_scale": "inv_sqrt_d_model"}, (0.25, None)),
        ({"final_logit_softcapping": 2.0, "lm_head_multiplier": 3.0}, (3.0, 2.0)),
    ],
)
def test_an_embedding_that_is_its_own_head(config, after, caplog):
    scale, cap = after

    def then(logits):
        return logits * scale if cap is None else cap * torch.tanh(logits * scale / cap)

    want, got, scorer = both(Composed(Tiny(after=then, **config)), text())
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=1e-6)
    assert (
        scorer.headless.refused is None and scorer.headless._after[0] == after and not said(caplog)
    )


def test_compiled_models_compute_their_logits(caplog):
    plain, model = build("gpt2"), build("gpt2")
    model.forward = torch.compile(model.forward, backend="eager")  # as Composer does it
    with pytest.raises(HeadError, match="the model is compiled"):
        find_head(model)
    got = score_batch(build_scorer("residual", model, head="reference"), model, text(), 5)
    want = score_batch(build_scorer("residual", plain, head=None), plain, text(), 5)
    torch.testing.assert_close(got, want, equal_nan=True)
    assert "the model is compiled" in said(caplog)[0]
    inner = build("gpt2")
    inner.model.transformer.compile(backend="eager")
    with pytest.raises(HeadError, match="the model is compiled"):
        find_head(inner)


def test_models_without_a_vocabulary_are_scored_as_ever(caplog):
    config = T.ViTConfig(
        image_size=16,
        patch_size=8,
        num_labels=5,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = wrapped(T.ViTForImageClassification(config), shift=False)
    assert build_scorer("loss", model).headless is None and not said(caplog)
    with pytest.raises(HeadError, match="ViTForImageClassification names no output embedding"):
        find_head(model)
    with pytest.raises(
        ScoreError, match="head must be one of auto, reference, chunked, triton or None, got 'fast'"
    ):
        build_scorer("loss", model, head="fast")
