"""docs/sources.md lists every paper that the code or a lesson names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAPER = re.compile(r"(?:arXiv[: ]|arxiv\.org/abs/)(\d{4}\.\d{5})")


def named(*patterns: str) -> set[str]:
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    return {number for f in files for number in PAPER.findall(f.read_text(encoding="utf-8"))}


def test_every_named_paper_is_listed():
    named_somewhere = named("qwen2lite/**/*.py", "notebooks/*.ipynb", "solutions/*.ipynb")
    assert "2407.10671" in named_somewhere
    assert not named_somewhere - named("docs/sources.md")
