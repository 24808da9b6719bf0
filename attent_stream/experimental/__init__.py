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
    },
}
