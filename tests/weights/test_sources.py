"""From a name to a place: what wins, what is suggested, and what is not there."""

import sys
from pathlib import Path

import pytest

from qwen2lite.weights.sources import (
    SOURCES,
    cache_dir,
    cached_path,
    default_model,
    known_name,
    resolve,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_every_name_is_a_source_with_a_place_of_its_own(cache):
    assert len({cached_path(name) for name in SOURCES}) == len(SOURCES) == 11
    assert all(path.parent == cache for path in map(cached_path, SOURCES))
    assert all(name == source.name for name, source in SOURCES.items())


def test_a_local_path_wins_over_a_known_name(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    (cache / "qwen2-0.5b").mkdir()
    assert resolve("qwen2-0.5b") == cache / "qwen2-0.5b"
    Path("qwen2-0.5b").mkdir()
    assert resolve("qwen2-0.5b") == Path("qwen2-0.5b")


def test_a_gguf_file_is_a_model_whatever_its_case(tmp_path):
    (tmp_path / "a.GGUF").touch()
    assert resolve(str(tmp_path / "a.GGUF")) == tmp_path / "a.GGUF"


@pytest.mark.parametrize("name", ["Qwen/Qwen2-0.5B-Instruct", "QWEN2-0.5B-instruct"])
def test_hub_ids_and_other_cases_are_known(name):
    assert known_name(name) == "qwen2-0.5b-instruct"


def test_a_name_not_fetched_comes_with_its_command():
    with pytest.raises(FileNotFoundError, match=r"python -m qwen2lite fetch qwen2-7b$"):
        resolve("qwen2-7b")


def test_a_half_download_is_not_found(cache):
    (cache / "qwen2-7b.part").mkdir()
    (cache / (SOURCES["qwen2.5-coder-0.5b-instruct-gguf"].file_name + ".part")).touch()
    with pytest.raises(FileNotFoundError, match="not fetched yet"):
        resolve("qwen2-7b")
    assert default_model() is None


def test_a_wrong_name_comes_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"did you mean .*qwen2-0\.5b-instruct"):
        resolve("qwen2-0.5b-instuct")
    with pytest.raises(FileNotFoundError, match=r"names: qwen2-0\.5b, .*-gguf"):
        resolve("llama")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_folder_one_stands_in(name):
    with pytest.raises(ValueError, match="the model's name is empty"):
        resolve(name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a model .* give a \.gguf"):
        resolve(tmp_path / "pytorch_model.bin")


def test_the_default_is_the_best_that_is_there(cache):
    gguf = SOURCES["qwen2.5-coder-0.5b-instruct-gguf"]
    (cache / gguf.file_name).touch()
    assert default_model() == gguf.name
    (cache / "qwen2-0.5b-instruct").mkdir()
    assert default_model() == "qwen2-0.5b-instruct"


@pytest.mark.parametrize(
    ("system", "variables", "wanted"),
    [
        ("linux", {"XDG_CACHE_HOME": "x"}, "x/qwen2lite"),
        ("linux", {}, "~/.cache/qwen2lite"),
        ("darwin", {"XDG_CACHE_HOME": "x"}, "~/Library/Caches/qwen2lite"),
        ("win32", {"LOCALAPPDATA": "l"}, "l/qwen2lite"),
        ("win32", {}, "~/AppData/Local/qwen2lite"),
        ("win32", {"QWEN2LITE_CACHE": "q", "LOCALAPPDATA": "l"}, "q"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(system, variables, wanted, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    for name in ("QWEN2LITE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(wanted).expanduser()
