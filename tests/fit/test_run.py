"""What AtteNT's arguments come to in each kind of run. Oracle: a table."""

import math
from dataclasses import replace

import pytest

from attent_stream.base.schedule import parse_interval
from attent_stream.fit.run import Facts
from attent_stream.fit.settings import Settings, parse_settings

IMAGES, IMAGES_ONCE = Facts(), Facts(once=True)
AGAIN, UNPACKED = Facts(text=True), Facts(text=True, once=True)
PADDED, PADDED_AGAIN = replace(UNPACKED, padded=True), replace(AGAIN, padded=True)
TRIMS = replace(PADDED, trims=True)
PACKED = Facts(text=True, once=True, packed=True)
LEARNT = Facts(text=True, once=True, packed=True, positions=True)
PACKED_AGAIN = Facts(text=True, packed=True)
LORA, LORA_PACKED = replace(AGAIN, adapters=True), replace(PACKED_AGAIN, adapters=True)
EVERYWHERE = (IMAGES, IMAGES_ONCE, AGAIN, UNPACKED, PACKED, PACKED_AGAIN)

PLAIN = {"keep": 1.0, "scored": False, "when": "never", "arrange": []}
BY_SCORES = {
    "keep": 0.7,
    "select": "soft",
    "score": "residual",
    "temperature": 1.0,
    "interval": "1ep",
    "scored": True,
    "when": "never",
}
BY_LOSSES = {"score": "loss", "interval": "1dur", "scored": False, "when": "always"}
SEEN_AGAIN = BY_LOSSES | {"keep": 0.5, "select": "soft", "temperature": 0.5, "detrend": True}
BOTH = ["pieces", "balance"]
TOWARD = {
    "keep": 0.25,
    "score": "resemblance",
    "select": "soft",
    "temperature": 0.3,
    "scored": True,
    "when": "never",
    "view": "ngrams",
}


def own_score(model, batch):
    return batch["input_ids"].float().mean(1)


# (arguments, kinds of runs, what the run does: all that is not named may be anything)
TABLE = [
    # The default
    ({}, (IMAGES, IMAGES_ONCE, UNPACKED), PLAIN),
    # Padded text
    ({}, (PADDED, replace(PADDED_AGAIN, adapters=True)), PLAIN | {"arrange": ["group"]}),
    ({}, (PADDED_AGAIN,), SEEN_AGAIN | {"arrange": ["group"]}),
    ({"keep": 1.0}, (PADDED, PADDED_AGAIN), {"keep": 1.0, "arrange": []}),
    ({"arrange": "none"}, (PADDED,), PLAIN),
    ({"arrange": "none"}, (PADDED_AGAIN,), SEEN_AGAIN | {"arrange": []}),
    ({"select": "random"}, (PADDED,), {"keep": 0.7, "arrange": []}),
    ({}, (replace(PADDED, text=False),), PLAIN),
    # Padded at its end, so that micro-batches can be cut
    ({}, (TRIMS,), PLAIN | {"arrange": ["group", "sort"]}),
    ({}, (replace(TRIMS, padded=False),), PLAIN | {"arrange": ["sort"]}),
    ({}, (replace(TRIMS, once=False),), SEEN_AGAIN | {"arrange": ["group", "sort"]}),
    ({"select": "random"}, (TRIMS,), {"keep": 0.7, "arrange": ["sort"]}),
    ({"keep": 1.0}, (TRIMS,), {"keep": 1.0, "arrange": []}),
    ({"arrange": "none"}, (TRIMS,), PLAIN),
    ({}, (AGAIN,), SEEN_AGAIN | {"arrange": []}),
    ({}, (PACKED_AGAIN,), SEEN_AGAIN | {"arrange": BOTH}),
    ({"remember": "never"}, (PACKED_AGAIN,), PLAIN),
    ({"select": "soft"}, (PACKED_AGAIN,), BY_SCORES | {"arrange": []}),
    ({"keep": 0.6}, (PACKED_AGAIN,), SEEN_AGAIN | {"keep": 0.6, "arrange": BOTH}),
    ({"arrange": "none"}, (PACKED_AGAIN,), SEEN_AGAIN | {"arrange": []}),
    ({}, (replace(PACKED_AGAIN, positions=True),), SEEN_AGAIN | {"arrange": ["balance"]}),
    ({}, (AGAIN,), SEEN_AGAIN | {"guarded": True}),
    ({}, (Facts(text=True, in_epochs=True),), SEEN_AGAIN | {"guarded": False}),
    ({}, (Facts(text=True, even=False),), SEEN_AGAIN | {"guarded": False}),
    ({"keep": 0.5}, (AGAIN,), SEEN_AGAIN | {"guarded": False}),
    ({"score": "residual", "remember": "always"}, (AGAIN,), {"when": "always", "guarded": False}),
    ({}, (PACKED,), PLAIN | {"arrange": BOTH, "guarded": False}),
    ({}, (LEARNT,), PLAIN | {"arrange": ["balance"]}),
    ({"arrange": {"pieces": 0.5}}, (LEARNT,), PLAIN | {"arrange": ["pieces"]}),
    # Few weights are trained: nothing is dropped, unless anything of a choice is given
    ({}, (LORA, LORA_PACKED), PLAIN),
    ({"warmup": "1ep"}, (LORA,), PLAIN),
    ({}, (replace(PACKED, adapters=True),), PLAIN | {"arrange": BOTH}),
    ({"arrange": {"balance": "tokens"}}, (LORA,), PLAIN | {"arrange": ["balance"]}),
    ({"remember": "always"}, (LORA,), SEEN_AGAIN | {"arrange": []}),
    ({"remember": {"detrend": False}}, (LORA,), SEEN_AGAIN | {"detrend": False}),
    ({"keep": 0.6}, (LORA,), SEEN_AGAIN | {"keep": 0.6}),
    ({"temperature": 2.0}, (LORA_PACKED,), SEEN_AGAIN | {"temperature": 2.0, "arrange": BOTH}),
    ({"score": "loss"}, (LORA,), SEEN_AGAIN),
    ({"score": "residual"}, (LORA,), SEEN_AGAIN | {"score": "residual"}),
    ({"score": "remembered"}, (LORA,), SEEN_AGAIN | {"enough": 0.5}),
    ({"scoring": {"fidelity": {"layers": 2}}}, (LORA,), SEEN_AGAIN),
    ({"select": "hard"}, (LORA,), BY_SCORES | {"select": "hard"}),
    ({"target": "t"}, (LORA,), TOWARD | {"interval": "1dur", "arrange": []}),
    # Plain training
    ({"keep": 1.0}, EVERYWHERE, {"keep": 1.0, "scored": False, "arrange": []}),
    ({"keep": 1.0, "select": "random"}, EVERYWHERE, PLAIN),
    ({"remember": "never"}, (IMAGES, AGAIN, UNPACKED), PLAIN),
    ({"arrange": "none"}, (IMAGES, UNPACKED, PACKED), PLAIN),
    # Candidates are scored as soon as one of four is given
    ({"keep": 0.6}, (IMAGES, IMAGES_ONCE, UNPACKED), BY_SCORES | {"keep": 0.6, "arrange": []}),
    ({"keep": 0.6}, (PACKED,), BY_SCORES | {"keep": 0.6, "arrange": BOTH}),
    ({"keep": 0.6}, (AGAIN,), SEEN_AGAIN | {"keep": 0.6}),
    ({"select": "hard"}, EVERYWHERE, BY_SCORES | {"select": "hard", "arrange": []}),
    ({"score": "grad_norm"}, (IMAGES, UNPACKED), BY_SCORES | {"score": "grad_norm"}),
    ({"scoring": {"fidelity": {"layers": 2}}}, (IMAGES, UNPACKED), BY_SCORES),
    ({"score": own_score}, (IMAGES, AGAIN, UNPACKED), BY_SCORES | {"score": own_score}),
    ({"select": "random"}, EVERYWHERE, {"keep": 0.7, "select": "random", "scored": False}),
    ({"select": "predicted"}, EVERYWHERE, BY_SCORES | {"select": "predicted"}),
    # What is given of a default stays
    (
        {"temperature": 2.0, "interval": "3ep", "score": "residual"},
        (AGAIN,),
        SEEN_AGAIN | {"temperature": 2.0, "interval": "3ep", "score": "residual"},
    ),
    ({"remember": {"detrend": False}}, (AGAIN,), SEEN_AGAIN | {"detrend": False}),
    ({"remember": {"per": "shard"}}, (AGAIN,), SEEN_AGAIN | {"per": "shard"}),
    # Remembered
    ({"remember": "always"}, (IMAGES, AGAIN), SEEN_AGAIN),
    ({"remember": "always"}, (IMAGES_ONCE, UNPACKED), PLAIN | {"when": "always"}),
    (
        {"remember": "warmup", "select": "hard"},
        EVERYWHERE,
        BY_SCORES | {"select": "hard", "when": "warmup"},
    ),
    ({"score": "remembered"}, (UNPACKED, IMAGES_ONCE), BY_LOSSES | {"keep": 0.7, "enough": 0.5}),
    ({"score": "remembered"}, (AGAIN,), SEEN_AGAIN | {"enough": 0.5}),
    (
        {"score": "remembered", "select": "hard", "remember": {"score": "grad_norm"}},
        EVERYWHERE,
        BY_LOSSES | {"select": "hard", "score": "grad_norm", "detrend": False, "enough": 0.5},
    ),
    (
        {"score": "progress"},
        EVERYWHERE,
        BY_LOSSES | {"select": "proportional", "per": "progress", "keep": 0.7, "arrange": []},
    ),
    # A target
    ({"target": "t"}, (PACKED,), TOWARD | {"interval": "1ep", "arrange": BOTH}),
    ({"target": "t"}, (UNPACKED,), TOWARD | {"interval": "1ep", "arrange": []}),
    ({"target": "t"}, (AGAIN,), TOWARD | {"interval": "1dur", "arrange": []}),
    (
        {"target": "t", "keep": 0.5, "select": "hard"},
        (PACKED,),
        TOWARD | {"keep": 0.5, "select": "hard", "arrange": BOTH},
    ),
    ({"target": "t", "select": "random"}, (PACKED,), {"keep": 0.25, "scored": False, "view": ""}),
    (
        {"target": "t", "score": "alignment"},
        (PACKED,),
        TOWARD | {"score": "alignment", "view": "", "arrange": BOTH},
    ),
    ({"target": "t", "score": "loss"}, (IMAGES,), BY_SCORES | {"score": "loss", "view": ""}),
    ({"target": "t", "keep": 1.0}, EVERYWHERE, {"keep": 1.0, "scored": False, "arrange": []}),
    # Arrangements
    ({"arrange": {"balance": "tokens"}}, EVERYWHERE, {"arrange": ["balance"]}),
    ({"arrange": {"balance": "tokens", "pieces": 0.5}}, EVERYWHERE, {"arrange": BOTH}),
    ({"arrange": {"balance": "none", "pieces": 0.5}}, EVERYWHERE, {"arrange": ["pieces"]}),
    ({"without": frozenset({"pieces"})}, (PACKED,), PLAIN | {"arrange": ["balance"]}),
]


def in_short(settings: Settings, facts: Facts) -> dict:
    """What a run does, by the names of ``TABLE``."""
    run = settings.of_run(facts)
    teacher, remember = run.teacher, run.remember
    assert teacher.keep.start == teacher.keep.end
    return {
        "keep": teacher.keep.start,
        "select": teacher.select,
        "score": run.score,
        "temperature": teacher.temperature,
        "interval": teacher.interval,
        "enough": teacher.enough,
        "guarded": math.isfinite(teacher.most_memorized),
        "scored": run.scored,
        "arrange": teacher.arrangements.names,
        "when": remember.when,
        "per": remember.per,
        "detrend": remember.detrend,
        "view": teacher.view,
    }


@pytest.mark.parametrize(("given", "kinds", "expected"), TABLE)
def test_what_settings_come_to(given, kinds, expected):
    settings = parse_settings(**given)
    if "interval" in expected:
        expected = expected | {"interval": parse_interval(expected["interval"])}
    for facts in kinds:
        found = in_short(settings, facts)
        assert {name: found[name] for name in expected} == expected, facts


@pytest.mark.parametrize(
    ("given", "facts", "told"),
    [
        ({}, IMAGES, "samples are streamed plainly"),
        (
            {},
            AGAIN,
            "samples seen again: the harder ones are chosen by their remembered losses "
            "(select: soft, score: loss, keep: 0.5)",
        ),
        (
            {},
            PACKED,
            "packed text seen once: nothing is dropped, short pieces of samples come first, "
            "batches are balanced",
        ),
        ({}, PADDED, "padded text: nothing is dropped, samples of a batch are of similar length"),
        (
            {},
            replace(TRIMS, padded=False),
            "padded text: nothing is dropped, micro-batches are cut to their longest sample",
        ),
        (
            {},
            replace(PADDED_AGAIN, adapters=True),
            "few of the model's weights are trained, so none of the text is dropped; padded text: "
            "nothing is dropped, samples of a batch are of similar length",
        ),
        ({"keep": 1.0}, AGAIN, "samples are streamed plainly"),
        (
            {},
            LORA,
            "few of the model's weights are trained, so none of the text is dropped; samples are "
            "streamed plainly",
        ),
        ({"keep": 1.0}, LORA, "samples are streamed plainly"),
        ({"keep": 1.0, "select": "hard"}, IMAGES, "samples are streamed plainly"),
        (
            {"score": own_score, "keep": 0.5},
            IMAGES,
            "samples are chosen (select: soft, score: a function, keep: 0.5)",
        ),
        ({"arrange": {"balance": "tokens"}}, IMAGES, "nothing is dropped, batches are balanced"),
        (
            {"target": "t"},
            PACKED,
            "samples like the target are chosen (select: soft, score: resemblance, keep: 0.25); "
            "short pieces of samples come first, batches are balanced",
        ),
    ],
)
def test_a_run_is_told_in_words(given, facts, told):
    assert parse_settings(**given).of_run(facts).told == told
