"""Lessons and exercises are as docs/style.md asks, and a lesson that isn't is seen."""

import copy
import re
from pathlib import Path

import nbformat
import pytest

from tools.run_notebooks import faults

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_as_it_should_be(path):
    assert not faults(path)


def unrun(lesson):
    lesson.cells[-2].execution_count = None


def failed(lesson):
    code = next(cell for cell in lesson.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


def long(lesson):
    next(c for c in lesson.cells if c.cell_type == "code").source = "a = 1\n" * 20


def second_source(lesson):
    next(
        c for c in lesson.cells if c.cell_type == "code"
    ).source = "def apply_rope(x):\n    return x"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (unrun, "not every cell was run"),
        (failed, "ended in an error"),
        (long, "a cell of 21 lines"),
        (second_source, "defines apply_rope"),
    ],
)
def test_a_spoilt_lesson_is_seen(spoil, said, tmp_path):
    lesson = copy.deepcopy(nbformat.read(ROOT / "notebooks/22_rope.ipynb", as_version=4))
    lesson.cells[-2:] = [c for c in lesson.cells if c.cell_type == "code"][-1:] + lesson.cells[-1:]
    spoil(lesson)
    path = tmp_path / "22_rope.ipynb"
    nbformat.write(lesson, path)
    assert any(said in fault for fault in faults(path))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_three_questions_and_folds_the_answers(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    questions = text.split("## Questions")[1].split("## ")[0]
    assert questions.count("<details><summary>") == questions.count("</details>") == 3


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
def test_every_graded_task_has_three_folded_hints(path):
    cells = nbformat.read(path, as_version=4).cells
    graded = [c for c in cells if c.metadata.get("nbgrader", {}).get("grade")]
    hints = sum(len(re.findall(r"<details><summary>Hint \d", cell.source)) for cell in cells)
    assert graded and hints == 3 * len(graded)
