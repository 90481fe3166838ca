"""Imports go down the list of the package's folders, and only learn/ knows of notebooks."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qwen2lite"
MAY_IMPORT = {
    "weights": {"weights"},
    "text": {"weights", "text"},
    "model": {"weights", "model"},
    "infer": {"weights", "text", "model", "infer"},
    "train": {"weights", "text", "model", "infer", "train"},
    "evaluate": {"weights", "text", "model", "infer", "train", "evaluate"},
    "align": {"weights", "text", "model", "infer", "train", "evaluate", "align"},
    "learn": {"weights", "text", "model", "infer", "train", "evaluate", "align", "learn"},
    "commands": {"weights", "text", "model", "infer", "train", "evaluate", "align", "learn",
                 "commands"},
}  # fmt: skip
NOTEBOOK_LIBRARIES = {"IPython", "ipywidgets", "matplotlib"}
FILES = sorted(file for folder in MAY_IMPORT for file in (PACKAGE / folder).rglob("*.py"))


def imported_modules(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def upward_imports(folder: str, modules: set[str]) -> set[str]:
    ours = {name.split(".")[1] for name in modules if name.startswith("qwen2lite.")}
    wrong = {name for name in ours & MAY_IMPORT.keys() if name not in MAY_IMPORT[folder]}
    roots = {name.split(".")[0] for name in modules}
    if folder != "learn":
        wrong |= roots & NOTEBOOK_LIBRARIES
    if folder == "text":
        wrong |= roots & {"torch"}
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file):
    folder = file.relative_to(PACKAGE).parts[0]
    assert not upward_imports(folder, imported_modules(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("weights", "from qwen2lite.model.config import Qwen2Config"),
        ("text", "import torch.nn"),
        ("model", "from matplotlib import pyplot"),
        ("infer", "from qwen2lite import learn"),
        ("train", "from qwen2lite.align.sft import fine_tune"),
    ],
)
def test_an_import_that_goes_up_is_seen(folder, line):
    assert upward_imports(folder, imported_modules(line))


def test_parts_do_not_import_each_other():
    """Inside model/, config < the parts < qwen2: a part is given what it needs."""
    parts = {"norm", "rope", "attention", "mlp", "moe"}
    for part in parts:
        modules = imported_modules((PACKAGE / "model" / f"{part}.py").read_text(encoding="utf-8"))
        used = {name.split(".")[2] for name in modules if name.startswith("qwen2lite.model.")}
        assert not used & (parts - {part})
        assert "qwen2" not in used
