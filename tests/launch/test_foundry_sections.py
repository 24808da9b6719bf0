"""The ``dataset`` sections of llm-foundry's loaders: what they take, and what they refuse."""

import pytest

from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.foundry_sections import FoundryFinetuningConfig, FoundryTextConfig

GIVEN = {"local": "x", "max_seq_len": 16}
ANSWERS = {**GIVEN, "decoder_only_format": True}


def refused(section: dict, kind: type) -> str:
    with pytest.raises(ConfigError) as caught:
        typed(section, kind, "dataset")
    return str(caught.value)


def test_keys_of_llm_foundry_and_ours_are_taken():
    text = typed(GIVEN | {"eos_token_id": 0, "window": 4, "stream_name": "s"}, FoundryTextConfig)
    assert (text.eos_token_id, text.window, text.stream_name) == (0, 4, "s")
    for ratio in (2.5, "auto"):
        answers = typed(ANSWERS | {"packing_ratio": ratio}, FoundryFinetuningConfig)
        assert answers.packing_ratio == ratio


@pytest.mark.parametrize(
    ("section", "kind", "expected"),
    [
        ({"local": "x"}, FoundryTextConfig, "dataset.max_seq_len: missing, expected int"),
        (GIVEN, FoundryFinetuningConfig, "dataset.decoder_only_format: missing, expected bool"),
        (
            ANSWERS | {"eos_token_id": 1},
            FoundryFinetuningConfig,
            "dataset.eos_token_id: unknown key",
        ),
        (
            GIVEN | {"allow_unsafe_types": True},
            FoundryTextConfig,
            "dataset: expected allow_unsafe_types false because it unpickles data, got true",
        ),
        (
            {"hf_name": "json", "max_seq_len": 16, "decoder_only_format": True},
            FoundryFinetuningConfig,
            "dataset: expected a streaming data set, got hf_name: write it as MDS "
            "(llmfoundry data_prep convert_finetuning_dataset), and give its folder as remote or "
            "local",
        ),
    ],
)
def test_mistakes_are_named(section, kind, expected):
    assert refused(section, kind).startswith(expected)
