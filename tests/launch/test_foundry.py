"""The llm-foundry entry points, called as it calls them; where it is installed, against its own
``text`` loader.

llm-foundry is large and bound to older libraries, so it is no dependency of the tests: ``pip
install llm-foundry`` beside this package in an environment of its own runs them all.
"""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from composer import Algorithm
from foundry_jobs import EOS, built, check_equal, make_tokenizer
from omegaconf import OmegaConf
from streaming import MDSWriter

from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.foundry_sections import FoundryFinetuningConfig, FoundryTextConfig

YAMLS = sorted((Path(__file__).parents[2] / "yamls" / "llmfoundry").glob("*.yaml"))
SECTIONS = {"attent_text": FoundryTextConfig, "attent_finetuning": FoundryFinetuningConfig}


@pytest.fixture
def foundry():
    """llm-foundry, or a skip that names it."""
    return pytest.importorskip("llmfoundry", reason="llm-foundry is not installed")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """40 samples of 24 tokens: ``array``/train as arrays, ``bytes``/train as bytes."""
    folder = tmp_path_factory.mktemp("foundry")
    rng = np.random.default_rng([3])
    tokens = rng.integers(0, 40, (40, 24), dtype=np.uint16)
    tokens[:, 5] = EOS
    for kind, column in (("array", "ndarray:uint16"), ("bytes", "bytes")):
        with MDSWriter(out=str(folder / kind / "train"), columns={"tokens": column}) as writer:
            for sample in tokens:
                writer.write({"tokens": sample if kind == "array" else sample.tobytes()})
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def registered(group: str, name: str):
    (point,) = [point for point in entry_points(group=group) if point.name == name]
    return point.load()


def section(corpus, kind="array", name="attent_text", workers=0, **dataset):
    given = {
        "local": f"{corpus}/{kind}",
        "split": "train",
        "shuffle": True,
        "shuffle_seed": 5,
        "max_seq_len": 16,
        **dataset,
    }
    # Stock llm-foundry gives up without this. Persistent workers take seconds to end, theirs and
    # ours alike.
    idle = {} if workers else {"prefetch_factor": None}
    return {
        "name": name,
        "dataset": given,
        "drop_last": True,
        "num_workers": workers,
        "pin_memory": False,
        "persistent_workers": False,
        **idle,
    }


def refused(cfg, device_batch_size=2) -> str:
    """What the loader says of a section that it does not take."""
    with pytest.raises(ConfigError) as caught:
        registered("llmfoundry_dataloaders", "attent_text")(
            **cfg, tokenizer=None, device_batch_size=device_batch_size
        )
    return str(caught.value)


def test_the_algorithm_is_an_algorithm_class_built_from_keywords():
    kind = registered("llmfoundry_algorithms", "attent")
    assert issubclass(kind, Algorithm)  # what llm-foundry's registry validates
    assert isinstance(kind(**{"keep": 0.5, "select": "soft"}), Algorithm)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"windw": 3}, "train_loader.dataset.windw: unknown key, did you mean 'window'?"),
        ({"window": "many"}, "train_loader.dataset.window: expected int, got str 'many'"),
        (
            {"allow_unsafe_types": True},
            "train_loader.dataset: expected allow_unsafe_types false because it unpickles data, "
            "got true",
        ),
        ({"local": "nowhere"}, "train_loader.dataset.local: folder 'nowhere/train' does not exist"),
        (
            {"max_seq_len": 1},
            "train_loader.dataset: expected max_seq_len of at least 2 tokens, got 1",
        ),
    ],
)
@pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
def test_mistakes_in_the_section_are_named(corpus, dataset, expected, wrap):
    assert refused(wrap(section(corpus, **dataset))) == expected


@pytest.mark.parametrize("name", ["attent_text", "attent_finetuning"])
def test_an_unknown_key_of_the_loader_is_named(corpus, name):
    given = {**section(corpus), "num_worker": 2}
    with pytest.raises(ConfigError, match="train_loader.num_worker: unknown key, did you mean"):
        registered("llmfoundry_dataloaders", name)(**given, tokenizer=None, device_batch_size=2)


@pytest.mark.parametrize("size", [0.5, True])
def test_a_device_batch_size_that_is_no_whole_number_is_refused(corpus, size):
    assert (
        refused(section(corpus), size)
        == f"device_batch_size: expected a whole number of samples, got {size}"
    )


def test_llm_foundry_is_not_imported():
    if "llmfoundry" in sys.modules:
        pytest.skip("another test has imported llm-foundry")
    (
        registered("llmfoundry_algorithms", "attent"),
        registered("llmfoundry_dataloaders", "attent_text"),
        registered("llmfoundry_dataloaders", "attent_finetuning"),
    )
    assert not [name for name in sys.modules if name.split(".")[0] == "llmfoundry"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_yaml_names_both_and_its_dataset_section_is_ours(path):
    plain = yaml.safe_load(path.read_text())
    assert registered("llmfoundry_algorithms", "attent")(**plain["algorithms"]["attent"])
    name = plain["train_loader"]["name"]
    assert registered("llmfoundry_dataloaders", name)
    given = OmegaConf.create(plain)
    given.variables |= {key: "x" for key, value in plain["variables"].items() if value == "???"}
    dataset = OmegaConf.to_container(given, resolve=True)["train_loader"]["dataset"]
    section = typed(dataset, SECTIONS[name])
    assert section.window == plain["train_loader"]["dataset"].get("window")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("kind", "dataset"),
    [
        ("array", {}),
        ("array", {"eos_token_id": EOS}),
        ("array", {"bos_token_id": 7, "override_bos_token_id_mismatch_error": True}),
        ("bytes", {"token_encoding_type": "uint16", "max_seq_len": 24.0}),
    ],
)
def test_without_a_teacher_the_batches_are_llm_foundrys(
    foundry, corpus, tokenizer, kind, dataset, workers
):
    theirs = built(section(corpus, kind, "text", workers, **dataset), tokenizer)
    expected = list(theirs.dataloader)
    counts = [theirs.get_num_tokens_in_batch(batch, "loss_generating") for batch in expected]
    del theirs
    ours = built(section(corpus, kind, workers=workers, window=4, gap=1, **dataset), tokenizer)
    batches = list(ours.dataloader)
    assert len(batches) == len(expected) == 10
    check_equal(batches, expected)
    assert [ours.get_num_tokens_in_batch(batch, "loss_generating") for batch in batches] == counts
    assert ("sequence_id" in batches[0]) == ("eos_token_id" in dataset or "bos_token_id" in dataset)


def test_the_data_set_is_taught_and_llm_foundrys(foundry, corpus, tokenizer):
    import pickle

    from llmfoundry.data.text_data import StreamingTextDataset
    from streaming import StreamingDataset

    from attent_stream import TeachingDataset
    from attent_stream.launch.foundry_datasets import TeachingTextDataset

    made = built(section(corpus, window=4, gap=1), tokenizer).dataloader.dataset
    order = type(made).__mro__
    assert order[:2] == (TeachingTextDataset, TeachingDataset)
    assert order.index(TeachingDataset) < order.index(StreamingTextDataset)
    assert order.index(StreamingTextDataset) < order.index(StreamingDataset)
    assert (made.window, made.gap, made.max_seq_len, made.tokenizer) == (4, 1, 16, tokenizer)
    assert made[0].shape == (16,) and made[0].dtype == torch.int64
    # For spawned workers
    assert pickle.loads(pickle.dumps(TeachingTextDataset)) is TeachingTextDataset


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"window": 1}, "train_loader: window must be an integer of at least 2"),
        ({"eos_token_id": 5}, "train_loader: Provided eos_token_id=5 does not match"),
    ],
)
def test_what_the_data_set_and_llm_foundry_refuse_is_said(
    foundry, corpus, tokenizer, dataset, expected
):
    with pytest.raises(ConfigError) as caught:
        built(section(corpus, **dataset), tokenizer)
    assert str(caught.value).startswith(expected)


@pytest.fixture
def mpt(foundry):
    from llmfoundry.models import ComposerMPTCausalLM

    torch.manual_seed(0)
    return ComposerMPTCausalLM(
        d_model=16,
        n_heads=2,
        n_layers=1,
        expansion_ratio=2,
        max_seq_len=16,
        vocab_size=40,
        loss_fn="torch_crossentropy",
        attn_config={"attn_impl": "torch", "attn_uses_sequence_id": True},
        init_device="cpu",
    )


@pytest.mark.parametrize("microbatch", [None, 1, 3, 4])
@pytest.mark.parametrize("score", ["loss", "residual"])
def test_llm_foundrys_batches_are_scored_sample_by_sample(
    mpt, corpus, tokenizer, score, microbatch
):
    from attent_stream.score.build import build_scorer
    from attent_stream.score.microbatches import score_batch

    (batch, *_) = built(section(corpus, eos_token_id=EOS), tokenizer).dataloader
    assert isinstance(batch["total_tokens"], list) and isinstance(
        batch["sequence_id"], torch.Tensor
    )
    mpt.eval()
    with torch.no_grad():
        logits = mpt(batch).logits.double()[:, :-1]
    targets = batch["labels"][:, 1:]
    valid = targets != -100
    assert not valid.all()  # the tokenizer's padding token is among the samples
    onehot = torch.nn.functional.one_hot(targets.clamp(min=0), logits.shape[-1])
    if score == "loss":
        each = -logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    else:
        each = (logits.softmax(-1) - onehot).square().sum(-1)
    expected = (each * valid).sum(1) / valid.sum(1)
    expected = expected.sqrt() if score == "residual" else expected
    keys = {
        key: value.clone() if isinstance(value, torch.Tensor) else list(value)
        for key, value in batch.items()
    }
    got = score_batch(build_scorer(score, mpt), mpt, batch, microbatch)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    assert batch.keys() == keys.keys() and batch["total_tokens"] == keys["total_tokens"]
    assert torch.equal(batch["labels"], keys["labels"])
