"""Hooks of mkdocs: pages of the site whose text lies elsewhere in the repository.

The first page is README, so that what is measured is said once. Links between these files and
``docs/`` become links between pages.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"index.md": "README.md", "experiments.md": "attent_stream/experimental/README.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text lies outside ``docs/``."""
    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    markdown = re.sub(
        r"\]\((?:\.\./)*attent_stream/experimental/README\.md", "](experiments.md", markdown
    )
    return re.sub(r"\]\((?:\.\./)*docs/", "](", markdown)
