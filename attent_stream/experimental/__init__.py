"""What has not paid yet. Each may go; see README.md beside this file."""

# Kind of plug-in -> name -> where it is
NAMES: dict[str, dict[str, str]] = {
    "score": {
        "entropy": "attent_stream.experimental.uncertainty:ENTROPY",
        "margin": "attent_stream.experimental.uncertainty:MARGIN",
    }
}
