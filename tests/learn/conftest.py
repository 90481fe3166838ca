"""Cells as IPython runs them, a learner's folder of the test's own, and nobody grading."""

import linecache
import sys
from types import ModuleType

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_HOME", str(tmp_path))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.delenv("QWEN2LITE_STRICT", raising=False)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_qwen2")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    yield
    plt.close("all")


@pytest.fixture
def cell(monkeypatch):
    """Runs a cell: one namespace for all, and each cell's text in linecache under its own name."""
    module = ModuleType("notebook_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = []

    def run(text):
        names.append(f"/tmp/ipykernel_1/{len(names)}.py")
        linecache.cache[names[-1]] = (len(text), None, text.splitlines(keepends=True), names[-1])
        exec(compile(text, names[-1], "exec"), vars(module))
        return module

    yield run
    for name in names:
        linecache.cache.pop(name, None)
