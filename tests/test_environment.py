"""environment.yml and constraints.txt say the same as pyproject.toml."""

import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def _bounds(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        requirement = Requirement(line)
        name = CONDA_NAMES.get(requirement.name, requirement.name).lower()
        found[name] = str(requirement.specifier)
    return found


def test_environment_yml_has_the_learners_packages_with_the_same_bounds():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = _bounds([line for line in listed if isinstance(line, str) and line != "pip"])
    python = conda.pop("python")
    assert conda == _bounds(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["course"])
    assert python == PROJECT["requires-python"]


def test_constraints_pin_every_package_that_pyproject_names():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = _bounds([line for line in lines if line and not line.startswith("#")])
    extras = PROJECT["optional-dependencies"].values()
    named = _bounds(PROJECT["dependencies"] + [line for extra in extras for line in extra])
    del named["qwen2lite"]  # an extra may name another one
    del named["triton"]  # each PyTorch for CUDA asks for a release of its own
    assert named.keys() <= pinned.keys()
    for name, bound in named.items():
        version = pinned[name].removeprefix("==")
        assert Requirement(f"{name}{bound}").specifier.contains(version), (name, bound, version)


def test_what_is_pinned_runs_on_the_oldest_python_that_is_named():
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    asked = {}
    for name in _bounds([line for line in lines if line and not line.startswith("#")]):
        with suppress(PackageNotFoundError):
            asked[name] = metadata(name)["Requires-Python"] or ""
    assert asked
    assert [n for n, python in asked.items() if not SpecifierSet(python).contains(oldest)] == []


@pytest.mark.skipif(not shutil.which("make"), reason="not checked: there is no make here")
def test_make_chat_hands_on_the_model_and_what_was_asked(tmp_path):
    for variable in ("MODEL=qwen2-1.5b-instruct", "MODEL=default"):
        told = subprocess.run(
            ["make", "-n", "chat", variable], cwd=ROOT, capture_output=True, encoding="utf-8"
        ).stdout
        assert ("chat --model qwen2-1.5b-instruct" in told) == (variable != "MODEL=default")
    shown = tmp_path / "Makefile"  # the same lines, with a program that says what it is given
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    program = f"{sys.executable} -c 'import sys; print(sys.argv[1:])'"
    shown.write_text(text.replace("$(BIN)/python -m qwen2lite", program), encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "course").touch()
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".venv" / "course")
    asked = 'say "hi" for $5 `id`, it\'s'
    done = subprocess.run(
        ["make", "-s", "chat", f"PROMPT={asked}"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == str(["chat", asked]), done.stderr
