"""Fixtures that every test has: shape suffixes that can't lie, and a home of its own."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

PACKAGE = str(Path(__file__).parents[1] / "qwen2lite")
SUFFIX = re.compile(r"_([BTSDNKGHRFEVXLQCP]+)$")
REAL_MODEL = "qwen2.5-coder-0.5b-instruct-gguf"

if not torch.cuda.is_available():  # here, because the next conftest may already import Triton
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test keeps never lands among a learner's parts."""
    monkeypatch.setenv("QWEN2LITE_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _shape_suffixes_are_true():
    """At each return in the package, `q_BNTH` must have four dimensions, and equal letters equal
    sizes. Tests use sizes that all differ, so a wrong name shows."""
    wrong: list[str] = []

    def look(frame, event, result):
        # None comes with an exception too, and what was refused may well have a wrong shape.
        done = event == "return" and result is not None
        if done and frame.f_code.co_filename.startswith(PACKAGE):
            wrong.extend(_lies(frame.f_locals, frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(look)
    yield
    sys.setprofile(before)
    assert not wrong, wrong[:5]


def _lies(names: dict[str, object], function: str) -> list[str]:
    sizes: dict[str, int] = {}
    lies = []
    for name, value in names.items():
        letters = SUFFIX.search(name)
        shape = getattr(value, "shape", None)
        if letters is None or not isinstance(shape, tuple):
            continue
        if len(shape) != len(letters[1]):
            lies.append(f"{function}: {name} has shape {list(shape)}")
            continue
        for letter, size in zip(letters[1], shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                lies.append(
                    f"{function}: {name} has shape {list(shape)}, but {letter}={sizes[letter]}"
                )
    return lies


@pytest.fixture(scope="session")
def real_model():
    """The real 0.5B in float32. CI fails without it; elsewhere its absence is shown."""
    from qwen2lite import Qwen2

    _need_real_weights()
    return Qwen2.from_pretrained(REAL_MODEL, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def real_tokenizer():
    """The real 0.5B's tokenizer."""
    from qwen2lite import Qwen2Tokenizer

    _need_real_weights()
    return Qwen2Tokenizer.from_pretrained(REAL_MODEL)


def _need_real_weights() -> None:
    from qwen2lite.weights.sources import cached_path

    if not cached_path(REAL_MODEL).exists() and not os.environ.get("CI"):
        pytest.skip(f"not checked: run `python -m qwen2lite fetch {REAL_MODEL}` first")


@contextmanager
def one_thread() -> Iterator[None]:
    """So small a model's work is shared by no threads: they would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
