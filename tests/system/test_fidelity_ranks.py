"""``fidelity`` on two ranks, under DDP, FSDP1 and FSDP2: the choices of one rank that has the whole
batch.
"""

import pytest
from corpora import write_tokens
from proxies import MODEL
from ranks_fit import LENGTH, VOCAB, fit
from ranks_jobs import rate, run_ranks, settings

pytestmark = pytest.mark.slow

AUTO = {
    "auto": {
        "agreement": 0.3,
        "every": 2,
        "samples": 32,
        "ways": [{"layers": 1}, {"tokens": {"share": 0.5}}],
    }
}
WAYS = {
    "layers": {"layers": 1, "tokens": {"share": 0.5}},
    "first": {"tokens": {"share": 0.5, "take": "first"}},
    "auto": AUTO,
    "proxy": {"proxy": {"model": MODEL, "train": True}},
}


def test_ranks_choose_as_one(tmp_path):
    folder = write_tokens(tmp_path / "data", 160, length=LENGTH, vocab=VOCAB)
    taught = {
        name: {"select": "hard", "keep": 0.5, "scoring": {"fidelity": way}}
        for name, way in WAYS.items()
    }
    alone = {name: fit(data=settings(folder, 1), attent=attent) for name, attent in taught.items()}
    assert len({str(log["choices"]) for log in alone.values()}) == len(WAYS)
    jobs = {
        f"{parallel} {name}": {
            "data": settings(folder, 2),
            "attent": attent,
            "parallel": parallel,
            "lr": rate(parallel),
        }
        for parallel in (None, "fsdp1", "fsdp2")
        for name, attent in taught.items()
    }
    logs = run_ranks(tmp_path, jobs)
    for rank in logs:
        for name, log in rank.items():
            assert "error" not in log, log
            want = alone[name.split(" ")[1]]["choices"]
            assert [choice[:2] for choice in log["choices"]] == [choice[:2] for choice in want], (
                name
            )
    for name in jobs:
        if name.endswith("auto"):
            said = [
                {
                    k: v
                    for k, v in log[name]["metrics"].items()
                    if "fidelity" in k and "time" not in k
                }
                for log in logs
            ]
            assert said[0] == said[1] and "attent/fidelity/layers_1/spearman" in said[0]


def test_alignment_with_a_target_chooses_as_one(tmp_path):
    """Adam's second moments are whole under DDP, and gathered under FSDP2. FSDP1 cuts them up, so
    that a rank has only the gradient, as with SGD.
    """
    folder = write_tokens(tmp_path / "data", 160, length=LENGTH, vocab=VOCAB)
    target = write_tokens(tmp_path / "target", 40, length=LENGTH, vocab=VOCAB, seed=1)
    attent = {"target": target, "score": "alignment", "select": "hard", "keep": 0.5}
    attent["arrange"] = "none"
    adam = {"optimizer": "AdamW", "lr": 0.01}
    alone = {
        "AdamW": fit(data=settings(folder, 1), attent=attent, **adam),
        "SGD": fit(data=settings(folder, 1), attent=attent),
    }
    assert alone["AdamW"]["choices"] != alone["SGD"]["choices"]
    jobs = {
        "ddp": {"parallel": None, **adam},
        "fsdp2": {"parallel": "fsdp2", **adam},
        "fsdp1": {"parallel": "fsdp1"},
    }
    jobs = {
        name: {"data": settings(folder, 2), "attent": attent, **job} for name, job in jobs.items()
    }
    for rank in run_ranks(tmp_path, jobs):
        for name, log in rank.items():
            assert "error" not in log, log
            want = alone[jobs[name].get("optimizer", "SGD")]["choices"]
            assert [choice[:2] for choice in log["choices"]] == [choice[:2] for choice in want], (
                name
            )
