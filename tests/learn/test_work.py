"""The learner's folder: updates arrive, and nothing that a learner wrote is ever lost."""

import pytest

from qwen2lite.learn.work import sync


@pytest.fixture
def course(tmp_path):
    for folder in ("notebooks", "exercises"):
        (tmp_path / "course" / folder).mkdir(parents=True)
        (tmp_path / "course" / folder / "22_rope.ipynb").write_text(f"{folder} 1", encoding="utf-8")
    return tmp_path / "course"


def contents(work):
    return {p.name: p.read_text(encoding="utf-8") for p in (work / "exercises").iterdir()}


def test_files_are_copied_once(course, tmp_path):
    assert len(sync(tmp_path / "work", course)) == 2
    assert sync(tmp_path / "work", course) == []


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
    sync(work, course)
    assert contents(work) == {"22_rope.ipynb": "mine", "22_rope.new.ipynb": "exercises 1"}
