"""What benchmarks/ and tools/ import from the package is there. Most of them run in no other test."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")])


def missing_names(source: str) -> list[str]:
    """The imports from qwen2lite that would fail."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qwen2lite":
            names = [(str(node.module), alias.name) for alias in node.names]
            found += [f"{module}.{name}" for module, name in names if _fails(module, name)]
    return found


def _fails(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return False
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return True
    return False


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_imported_from_the_package_is_there(file):
    assert missing_names(file.read_text(encoding="utf-8")) == []


def test_a_module_or_a_name_that_is_gone_is_found():
    source = "from qwen2lite.weights.gone import a\nfrom qwen2lite.model.mlp import SwiGLU, Gone\n"
    assert missing_names(source) == ["qwen2lite.weights.gone.a", "qwen2lite.model.mlp.Gone"]
