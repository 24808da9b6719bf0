"""Trainings of which one fails while another is under way."""

from pathlib import Path

from together import until


class Failing:
    """Stands for ``Training``: the run "fails" raises, and "long" ends after that only."""

    def __init__(self, folder: Path) -> None:
        self.failed = folder / "failed"

    def record(self, run: str, key: str, name: str) -> str:
        if run == "fails":
            self.failed.touch()
            raise ValueError("this run cannot")
        if run == "long":
            assert until(self.failed.exists, 60)
        return run


class Endless:
    """Stands for ``Training``: a run ends at once if it is "short", and else never."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, run: str, key: str, name: str) -> str:
        if run != "short":
            (self.folder / run).touch()
            until(lambda: False, 600)
        assert until((self.folder / "endless").exists, 60)
        return run
