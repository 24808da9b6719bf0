"""The site of docs/: it builds without a warning, and its page of keys is of today's settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keys_page
import pytest

ROOT = Path(__file__).parents[2]


def test_the_site_builds_and_needs_nothing_from_elsewhere(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="?(https?:[^">]+)', text)
        loaded += re.findall(r'<link[^>]*rel="?stylesheet"?[^>]*href="?(https?:[^">]+)', text)
        assert not loaded, page
    start = (tmp_path / "index.html").read_text("utf-8")
    assert "Which regime am I in?" in start and 'href="target/' in start


def test_the_page_of_keys_is_of_todays_settings():
    assert keys_page.PAGE.read_text("utf-8") == keys_page.page()


def test_an_argument_without_a_meaning_is_refused():
    class Silent:
        """Says nothing."""

        def __init__(self, depth: int = 1) -> None: ...

    with pytest.raises(ValueError, match="Silent: the docstring says nothing of depth"):
        keys_page.rows(Silent)


def test_types_are_in_a_readers_words():
    from collections.abc import Mapping
    from typing import Any, Literal

    shown = {
        int | str: "whole number or text",
        float | None: "number",
        Literal["a", "b"] | None: "`a`, `b`",
        Mapping[str, Any]: "mapping",
        list[str] | None: "list",
        bool: "true or false",
    }
    assert {hint: keys_page.type_name(hint) for hint in shown} == shown
