"""What has not paid yet. Each may go; see README.md beside this file."""

# Kind of plug-in -> name -> where it is
NAMES: dict[str, dict[str, str]] = {
    "fidelity": {
        "patches": "attent_stream.experimental.patches:RandomPatches",
        "proxy": "attent_stream.experimental.proxy:ProxySettings",
    },
    "score": {
        "entropy": "attent_stream.experimental.uncertainty:ENTROPY",
        "margin": "attent_stream.experimental.uncertainty:MARGIN",
        "learnability": "attent_stream.experimental.learnability:LEARNABILITY",
        "progress": "attent_stream.experimental.progress:RECIPE",
    },
    "select": {
        "prune": "attent_stream.experimental.inclusion:PRUNE",
        "unbiased": "attent_stream.experimental.inclusion:UNBIASED",
        "proportional": "attent_stream.experimental.inclusion:PROPORTIONAL",
        "predicted": "attent_stream.experimental.predicted:PREDICTED",
    },
    "remember.per": {"progress": "attent_stream.experimental.progress:open_progress"},
    "algorithms": {
        "reweight": "attent_stream.experimental.reweighting:Reweight",
        "kept_positions": "attent_stream.experimental.kept_positions:KeptPositions",
    },
}
