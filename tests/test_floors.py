"""Folders are floors: a file imports only from lower floors or its own folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "attent_stream"
# From the ground up. Folders of one floor do not import each other. A file of the package's own
# folder stands above all floors. ``experimental`` may import every floor, and none imports it.
FLOORS = [
    {"base"},
    {"store", "corpus", "model", "window"},
    {"order", "memory", "score", "arrange"},
    {"teach"},
    {"data"},
    {"effects"},
    {"fit"},
    {"launch"},
    {"demo"},
    {"bench", "report"},
]
FLOOR = {folder: height for height, folders in enumerate(FLOORS) for folder in folders}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> list[tuple[str, int]]:
    """Modules of this package that a file imports anywhere in it, below ``attent_stream``, with
    their lines.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            names = [f"{node.module}.{name.name}" for name in node.names]
        found += [
            (name.split(".", 1)[1], node.lineno)
            for name in names
            if name.startswith("attent_stream.")
        ]
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_go_down(path):
    folders = path.relative_to(PACKAGE).parts[:-1]
    if not folders:
        return
    wrong = []
    for module, line in imported(path):
        target = module.split(".")[0]
        if folders[0] == "experimental" or target == folders[0] or module == "__version__":
            continue
        if target not in FLOOR or FLOOR[target] >= FLOOR[folders[0]]:
            wrong.append(
                f"{path.relative_to(PACKAGE)}:{line} imports {module}, which is on no lower floor"
            )
    assert not wrong, "\n".join(wrong)


def test_only_experimental_imports_experimental():
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] != "experimental":
            assert not [m for m, _ in imported(path) if m.split(".")[0] == "experimental"], path


def test_every_folder_is_on_a_floor():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == FLOOR.keys() | {"experimental"}
