"""The llm-foundry entry points, called as it calls them (``build_algorithm``, ``build_dataloader``)."""

import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from composer import Algorithm, DataSpec
from omegaconf import OmegaConf
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

from attent_stream.config_check import ConfigError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("foundry")
    rng = np.random.default_rng([3])
    with MDSWriter(out=str(folder / "train"), columns={"tokens": "ndarray:uint16"}) as writer:
        for _ in range(40):
            writer.write({"tokens": rng.integers(0, 256, 24, dtype=np.uint16)})
    return str(folder)


def registered(group: str, name: str):
    (point,) = [point for point in entry_points(group=group) if point.name == name]
    return point.load()


def build_dataloader(cfg, tokenizer, device_batch_size):
    """llm-foundry's ``build_dataloader``: pops the name, passes the section's keys on by keyword."""
    name = cfg.pop("name")
    kwargs = {**{str(key): value for key, value in cfg.items()}, "tokenizer": tokenizer}
    return registered("llmfoundry_dataloaders", name)(**kwargs, device_batch_size=device_batch_size)


def section(corpus, **dataset):
    given = {
        "local": corpus,
        "split": "train",
        "shuffle": True,
        "shuffle_seed": 5,
        "max_seq_len": 16,
        **dataset,
    }
    loader = {
        "name": "attent_text",
        "dataset": given,
        "drop_last": True,
        "num_workers": 0,
        "pin_memory": False,
    }
    return OmegaConf.create(loader)


def test_the_algorithm_is_an_algorithm_class_built_from_keywords():
    kind = registered("llmfoundry_algorithms", "attent")
    assert issubclass(kind, Algorithm)  # what llm-foundry's registry validates
    assert isinstance(kind(**{"keep": 0.5, "select": "soft"}), Algorithm)


def test_the_loader_yields_what_stock_streaming_does(corpus):
    from attent_stream.dataloader import TeachingDataLoader

    spec = build_dataloader(
        section(corpus, window=4, gap=1, eos_token_id=0), tokenizer=None, device_batch_size=4
    )
    assert isinstance(spec, DataSpec) and isinstance(spec.dataloader, TeachingDataLoader)
    assert spec.dataloader.dataset.window == 4
    ours = list(spec.dataloader)
    stock = StreamingDataset(local=corpus, split="train", shuffle=True, shuffle_seed=5, batch_size=4)
    theirs = list(StreamingDataLoader(stock, batch_size=4, drop_last=True))
    assert len(ours) == len(theirs) == 10
    for mine, batch in zip(ours, theirs, strict=True):
        assert torch.equal(mine["input_ids"], batch["tokens"][:, :16].to(torch.int64))
        assert torch.equal(mine["labels"], mine["input_ids"])
    assert spec.get_num_tokens_in_batch(ours[0]) == 4 * 16
    assert spec.get_num_tokens_in_batch(ours[0], "loss_generating") == 4 * 16


def test_a_name_that_is_passed_on_is_accepted(corpus):
    build = registered("llmfoundry_dataloaders", "attent_text")
    assert build(**section(corpus), tokenizer=None, device_batch_size=2).dataloader.batch_size == 2


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"windw": 3}, "train_loader.dataset.windw: unknown key, did you mean 'window'?"),
        ({"local": "nowhere"}, "train_loader.dataset.local: folder 'nowhere/train' does not exist"),
        ({"window": 1}, "train_loader: window must be"),
    ],
)
def test_mistakes_in_the_section_are_named(corpus, dataset, expected):
    with pytest.raises(ConfigError) as caught:
        build_dataloader(section(corpus, **dataset), tokenizer=None, device_batch_size=2)
    assert str(caught.value).startswith(expected)


def test_a_fractional_device_batch_size_is_refused(corpus):
    with pytest.raises(
        ConfigError, match=r"^device_batch_size: expected a whole number of samples, received 0.5$"
    ):
        build_dataloader(section(corpus), tokenizer=None, device_batch_size=0.5)


def test_llm_foundry_is_not_imported():
    registered("llmfoundry_algorithms", "attent"), registered("llmfoundry_dataloaders", "attent_text")
    assert not [name for name in sys.modules if name.split(".")[0] == "llmfoundry"]
