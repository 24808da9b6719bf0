"""AtteNT's arguments, and what is wrong with bad ones."""

import pytest

from attent_stream.fit.settings import parse_settings


def own_score(model, batch):
    return batch["input_ids"].float().mean(1)


def test_what_was_asked_for_by_name():
    default = parse_settings()
    assert default.given == {} and not default.remembers_by_name and not default.arranges_by_name
    asked = parse_settings(remember="always", keep=0.5, arrange={"pieces": 0.5, "balance": "none"})
    assert asked.given == {"when": "always", "keep": 0.5}
    assert asked.remembers_by_name and asked.arranges_by_name == {"pieces"}
    for score in (
        "remembered",
        "loss",
    ):  # on text seen again, which is chosen by what is remembered
        assert parse_settings(score=score).remembers_by_name
    assert not parse_settings(remember="never").remembers_by_name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"select": "hard", "keep": 0},
            "keep must be a number greater than 0 and at most 1, got 0",
        ),
        ({"select": "hard", "keep": 1.5}, "keep must be a number greater than 0 and at most 1"),
        ({"score": "los"}, "score has no 'los', did you mean 'loss'"),
        ({"select": "sofd"}, "select has no 'sofd', did you mean 'soft'"),
        ({"interval": "often"}, "interval must be 'dense'"),
        ({"warmup": "3 parsecs"}, "the unit of a time must be one of .*, got 'parsecs'"),
        ({"temperature": -1}, "temperature must be a positive number, got -1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"remember": "sometimes"}, "remember.when has no 'sometimes'"),
        ({"remember": {"per": "shrd"}}, "remember.per has no 'shrd', did you mean 'shard'"),
        (
            {"remember": "always", "score": own_score},
            "remember.when='always' needs a score of the training forward's own outputs, got a",
        ),
        ({"score": "remembered", "remember": "never"}, "needs remember.when, got 'never'"),
        ({"arrange": 3}, "arrange must be 'none', a name, or a mapping of arrangements, got 3"),
        ({"arrange": "balanse"}, "arrange has no 'balanse', did you mean 'balance'"),
        ({"arrange": {"pieces": 0.9}}, "arrange.pieces must be 1, or below 0.7 at some time"),
        (
            {"score": own_score, "scoring": {"fidelity": {"tokens": {"share": 0.5}}}},
            "scoring.fidelity must be full for a score of your own",
        ),
        (
            {"score": "loss", "scoring": {"reference": {"snapshot": "5ba"}}},
            "score 'loss' and scoring.reference do not go together",
        ),
        (
            {"score": "progress", "select": "hard"},
            "score 'progress' needs select to be 'proportional', got 'hard'",
        ),
        (
            {"score": "progress", "remember": {"per": "shard"}},
            "score 'progress' needs remember.per to be left away, got {'per': 'shard'}",
        ),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(given, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")) as told:
        parse_settings(**given)
    assert "\n" not in str(told.value)
