"""The learner's folder: updates arrive, and nothing that a learner wrote is ever lost."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from qwen2lite.learn.work import lab, sync


@pytest.fixture
def course(tmp_path):
    for folder in ("notebooks", "exercises"):
        (tmp_path / "course" / folder).mkdir(parents=True)
        (tmp_path / "course" / folder / "22_rope.ipynb").write_text(f"{folder} 1", encoding="utf-8")
    return tmp_path / "course"


def contents(work):
    return {p.name: p.read_text(encoding="utf-8") for p in (work / "exercises").iterdir()}


def test_files_are_copied_once(course, tmp_path):
    work = tmp_path / "not" / "yet" / "there"
    assert len(sync(work, course)) == 2
    assert sync(work, course) == []


def test_an_update_replaces_an_unchanged_copy_and_stands_beside_a_changed_one(course, tmp_path):
    work = tmp_path / "work"
    sync(work, course)
    mine, update = work / "exercises" / "22_rope.ipynb", course / "exercises" / "22_rope.ipynb"
    update.write_text("exercises 2", encoding="utf-8")
    sync(work, course)
    assert contents(work) == {"22_rope.ipynb": "exercises 2"}
    mine.write_text("my answer", encoding="utf-8")
    update.write_text("exercises 3", encoding="utf-8")
    sync(work, course)
    assert contents(work) == {"22_rope.ipynb": "my answer", "22_rope.new.ipynb": "exercises 3"}
    assert sync(work, course) == []


def test_without_an_update_nothing_is_put_beside_a_changed_copy(course, tmp_path):
    work = tmp_path / "work"
    sync(work, course)
    (work / "exercises" / "22_rope.ipynb").write_text("my answer", encoding="utf-8")
    assert sync(work, course) == []
    assert contents(work) == {"22_rope.ipynb": "my answer"}


def test_a_changed_new_file_stays_too(course, tmp_path):
    work = tmp_path / "work"
    sync(work, course)
    update = course / "exercises" / "22_rope.ipynb"
    (work / "exercises" / "22_rope.ipynb").write_text("mine", encoding="utf-8")
    for number in (2, 3):
        update.write_text(f"exercises {number}", encoding="utf-8")
        sync(work, course)
    wanted = {"mine", "exercises 2", "exercises 3"}
    assert set(contents(work).values()) == wanted


def test_a_lost_record_of_copies_loses_nothing(course, tmp_path):
    work = tmp_path / "work"
    sync(work, course)
    (work / "exercises" / "22_rope.ipynb").write_text("mine", encoding="utf-8")
    (work / ".copied.json").unlink()
    beside = work / "exercises" / "22_rope.new.ipynb"
    assert sync(work, course) == [beside], "an unchanged copy needs none"
    assert contents(work) == {"22_rope.ipynb": "mine", beside.name: "exercises 1"}


def test_a_hundred_updates_are_said_and_not_passed_over(course, tmp_path):
    work = tmp_path / "work"
    sync(work, course)
    for number in ("", ".new", *(f".new{n}" for n in range(2, 100))):
        (work / "exercises" / f"22_rope{number}.ipynb").write_text("mine", encoding="utf-8")
    (course / "exercises" / "22_rope.ipynb").write_text("exercises 2", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError, match="a hundred updates of 22_rope.ipynb; move some away"):
            sync(work, course)
    assert set(contents(work).values()) == {"mine"}


@pytest.mark.parametrize("damaged", ["", "[]", "half a rec", "\ud83d"])
def test_a_damaged_record_of_copies_loses_nothing(course, tmp_path, damaged):
    work = tmp_path / "work"
    sync(work, course)
    (work / "exercises" / "22_rope.ipynb").write_text("my answer", encoding="utf-8")
    (work / ".copied.json").write_bytes(damaged.encode("utf-8", "surrogatepass"))
    sync(work, course)
    assert contents(work)["22_rope.ipynb"] == "my answer"
    assert sync(work, course) == []


def test_a_folder_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="can't write the lessons to .*set QWEN2LITE_HOME"):
        sync(tmp_path / "file" / "work")


class Server:
    """In JupyterLab's place: it hears Ctrl-C twice, and ends when its person says so."""

    status = 0

    def __init__(self, command, cwd, env):
        Server.command, self.interrupts = command, 2

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert not self.interrupts, "killed before it was asked"

    def wait(self):
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return Server.status


def test_the_lab_can_open_exercises_and_outlives_ctrl_c(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_HOME", str(tmp_path / "my work"))
    monkeypatch.setattr(subprocess, "Popen", Server)
    lab()
    roots = [word for word in Server.command if word.startswith("--ServerApp.root_dir=")]
    root = Path(roots[0].partition("=")[2])
    assert (root / "notebooks").is_dir() and (root / "exercises").is_dir()


def test_a_lab_that_does_not_start_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", Server)
    monkeypatch.setattr(Server, "status", 1)
    with pytest.raises(OSError, match=r"status 1; what it says above may stand in docs/troubles"):
        lab()


def test_a_lab_that_is_not_installed_is_said_before_anything_is_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_HOME", str(tmp_path / "work"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="JupyterLab isn't installed; run: python -m pip install"):
        lab()
    assert not (tmp_path / "work").exists()


@pytest.fixture
def terminal():
    """One end of a terminal. Without one JupyterLab has nobody to ask, and ends."""
    try:
        ends = os.openpty()
    except (AttributeError, OSError):
        pytest.skip("not checked: this machine gives no terminal")
    yield ends[1]
    for end in ends:
        os.close(end)


def test_the_real_lab_serves_exercises_and_asks_before_it_ends(terminal, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"QWEN2LITE_HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    server = {"JUPYTER_PORT": str(port), "JUPYTER_TOKEN": "known", "BROWSER": "true"}
    (tmp_path / "config").mkdir()
    allowed = json.dumps({"ServerApp": {"allow_root": True}})  # CI is root, and JupyterLab minds
    (tmp_path / "config" / "jupyter_server_config.json").write_text(allowed, encoding="utf-8")
    command = [sys.executable, "-m", "qwen2lite", "lab"]
    with subprocess.Popen(
        command, env={**os.environ, **places, **server}, stdin=terminal,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as lab_process:  # fmt: skip
        try:
            contents = f"http://127.0.0.1:{port}/api/contents/exercises?token=known"
            assert "22_rope.ipynb" in [entry["name"] for entry in ask(contents)["content"]]
            os.killpg(lab_process.pid, signal.SIGINT)
            said = b""
            while b"Shut down this Jupyter server" not in said:
                said += os.read(lab_process.stdout.fileno(), 1000) or pytest.fail("ended unasked")
            assert ask(contents)["name"] == "exercises"
            time.sleep(1)  # a command that ends at Ctrl-C takes a moment
            assert lab_process.poll() is None
        finally:
            if lab_process.poll() is None:
                os.killpg(lab_process.pid, signal.SIGKILL)


def ask(address: str) -> dict:
    """What a server says, as soon as it is there."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nobody answers at {address}")
