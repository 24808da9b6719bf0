"""The program in docs/plain_loop.md runs, and goes on where it was killed."""

import re
import runpy
from pathlib import Path

from corpora import write_tokens

DOCS = Path(__file__).parents[1] / "docs"


def test_the_program_of_the_docs(tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "plain_loop.md").read_text(), re.DOTALL)
    assert program.count("\n") < 40
    write_tokens(tmp_path / "corpus" / "asyncio" / "train", 520, length=16, vocab=2048)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "program.py"
    path.write_text(program)
    runpy.run_path(str(path))
    whole = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in whole] == ["20", "40", "60"]
    (tmp_path / "loop.pt").unlink()
    path.write_text(
        program.replace("for batch in loop:", "for batch in loop:\n    stop(loop.step)")
    )

    def stop(step):
        if step == 47:
            raise KeyboardInterrupt

    try:
        runpy.run_path(str(path), {"stop": stop})
    except KeyboardInterrupt:
        capsys.readouterr()
    path.write_text(program)
    runpy.run_path(str(path))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["60"]
