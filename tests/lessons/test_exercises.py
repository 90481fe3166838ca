"""The exercises as a learner, a grader and a teacher meet them."""

import ast
import copy
import csv
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
STEMS = sorted(path.stem for path in (ROOT / "solutions").glob("*.ipynb"))


def read(folder, stem):
    return nbformat.read(ROOT / folder / f"{stem}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook, home, **settings):
    """Runs a copy of a notebook in a kernel of its own and returns the copy."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NBGRADER_EXECUTION",)}
    environment |= {"QWEN2LITE_HOME": str(home), "QWEN2LITE_STRICT": "0", **settings}
    done = copy.deepcopy(notebook)
    client = NotebookClient(done, timeout=120, allow_errors=True, kernel_name="python3")
    client.execute(env=environment)
    return done


def errors(notebook):
    """The failing cells: grade_id (or id), and what was raised."""
    found = {}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                grading = cell.metadata.get("nbgrader", {})
                found[grading.get("grade_id", cell.id)] = f"{output.ename}: {output.evalue}"
    return found


def graded(notebook):
    cells = [c for c in code_cells(notebook) if c.metadata.get("nbgrader", {}).get("grade")]
    return {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points for cell in cells}


def test_there_are_exercises():
    assert "22_rope" in STEMS
    assert sorted(path.stem for path in (ROOT / "exercises").glob("*.ipynb")) == STEMS


def test_exercises_are_what_the_tool_makes_of_the_solutions():
    tool = [sys.executable, str(ROOT / "tools" / "make_exercises.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def answers(notebook):
    """Every line that a learner has to write, less what a stub shows: signatures and docstrings."""
    lines = []
    for cell in code_cells(notebook):
        for region in re.findall(r"### BEGIN SOLUTION.*?\n(.*?) *### END", cell.source, re.DOTALL):
            # Where a bug is to be found, all but the bug is given.
            if not region.startswith("### INSTEAD OF"):
                lines += _written_by_hand(textwrap.dedent(region))
    return {squeezed(line) for line in lines}


def _written_by_hand(code):
    lines, shown = code.split("\n"), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            shown |= set(range(first, body[0].lineno))
    return [line for number, line in enumerate(lines, 1) if number not in shown]


def squeezed(line):
    return "".join(line.split())


@pytest.mark.parametrize("stem", STEMS)
def test_an_exercise_holds_no_answer(stem):
    """No line of a solution, spaces aside, is in the exercise: not in its code, not in its text."""
    wanted = {line for line in answers(read("solutions", stem)) if len(line) > 12}
    exercise = read("exercises", stem)
    text = "\n".join(squeezed(line) for c in exercise.cells for line in c.source.split("\n"))
    assert len(wanted) >= 5
    assert [line for line in wanted if line in text] == []
    assert "SOLUTION" not in text and "HIDDENTESTS" not in text and "INSTEADOF" not in text


@pytest.mark.parametrize("stem", STEMS)
def test_the_text_of_a_notebook_is_in_order(stem):
    exercise, solution = read("exercises", stem), read("solutions", stem)
    nbformat.validate(exercise)
    nbformat.validate(solution)
    assert all(not c.outputs and c.execution_count is None for c in code_cells(solution))
    hints = [c.source.count("<summary>Hint ") for c in exercise.cells if "Hint 1" in c.source]
    tasks = sum(1 for c in code_cells(solution) if "### BEGIN SOLUTION" in c.source)
    assert hints == [3] * tasks
    assert tasks == len(graded(exercise))
    text = "\n".join(cell.source for cell in exercise.cells if cell.cell_type == "markdown")
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    assert f"{sum(graded(exercise).values())} points" in text
    for cell in code_cells(exercise):
        if not cell.metadata.get("nbgrader", {}).get("solution"):
            assert len(cell.source.split("\n")) <= 15


@pytest.mark.parametrize("stem", STEMS)
def test_an_untouched_exercise_runs_to_its_end_without_red(stem, tmp_path):
    done = run(read("exercises", stem), tmp_path)
    assert errors(done) == {}
    shown = json.dumps(done)
    assert "not written yet" in shown
    assert not list(tmp_path.rglob("*.py"))


@pytest.mark.parametrize("stem", STEMS)
def test_graded_strictly_an_untouched_exercise_fails_every_task(stem, tmp_path):
    done = run(read("exercises", stem), tmp_path, QWEN2LITE_STRICT="1")
    failed = errors(done)
    assert graded(done).keys() <= failed.keys()
    assert all(failed[task].startswith("AssertionError") for task in graded(done))


@pytest.mark.parametrize("stem", STEMS)
def test_a_solution_passes_strictly_and_keeps_its_parts(stem, tmp_path):
    solution = read("solutions", stem)
    done = run(solution, tmp_path, QWEN2LITE_STRICT="1")
    assert errors(done) == {}
    kept = {path.stem for path in (tmp_path / "my_qwen2").glob("*.py")} - {"__init__"}
    # Some exercises build what is no part of the model: a tokenizer, a filter.
    assert bool(kept) == any("keep(" in cell.source for cell in code_cells(solution))
    if kept:
        # A model with experts or for long texts has more parts than a plain one's eight.
        said = rf"\b{len(kept)} of \d+ parts of this answer ran on your code"
        assert re.search(said, json.dumps(done))


def test_a_class_of_a_notebook_can_be_kept(tmp_path):
    """Only a real kernel shows whether the source of a class is found."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(text)
        for text in (
            "import torch\nfrom torch import nn\nfrom qwen2lite.learn import keep, my_parts",
            "def squash(x):\n    return x * x.sigmoid()",
            "class SwiGLU(nn.Module):\n"
            "    def __init__(self, size, width):\n"
            "        super().__init__()\n"
            "        self.gate_proj = nn.Linear(size, width, bias=False)\n"
            "        self.up_proj = nn.Linear(size, width, bias=False)\n"
            "        self.down_proj = nn.Linear(width, size, bias=False)\n\n"
            "    def forward(self, x):\n"
            "        return self.down_proj(squash(self.gate_proj(x)) * self.up_proj(x))",
            "keep(SwiGLU)\nprint(my_parts().mlp.__module__)",
        )
    ]
    done = run(notebook, tmp_path, QWEN2LITE_STRICT="1")
    assert errors(done) == {}
    assert "my_qwen2.mlp" in json.dumps(done)
    assert "def squash" in (tmp_path / "my_qwen2" / "mlp.py").read_text(encoding="utf-8")


# --- a class, with nbgrader ------------------------------------------------------------------


def nbgrader(course, *arguments):
    environment = {**os.environ, "QWEN2LITE_HOME": str(course / "home")}
    environment.pop("QWEN2LITE_STRICT", None)
    # nbgrader starts a program, alembic, that lies beside this Python.
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(
        command, cwd=course, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def hand_in(course, student, notebook, stem):
    folder = course / "submitted" / student / stem
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{stem}.ipynb")


def sabotaged(exercise):
    """An exercise whose checks were replaced by something that always passes."""
    notebook = copy.deepcopy(exercise)
    for cell in code_cells(notebook):
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "print('all is well')"
    return notebook


def with_check_redefined(exercise):
    notebook = copy.deepcopy(exercise)
    for cell in code_cells(notebook):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source += "\n\n\ndef check(**parts):\n    return None\n"
    return notebook


def with_hidden_tests(solution, number):
    """As docs/teaching.md has them: at the end of a test cell. They want what only oscar lacks."""
    notebook = copy.deepcopy(solution)
    cell = [c for c in code_cells(notebook) if c.metadata.get("nbgrader", {}).get("grade")][number]
    hidden = ("### BEGIN HIDDEN TESTS", "assert 'oscar' not in globals()", "### END HIDDEN TESTS")
    cell.source = "\n".join((cell.source, *hidden))
    return notebook, float(cell.metadata.nbgrader.points)


def only_for_the_checks(solution):
    notebook = copy.deepcopy(solution)
    code_cells(notebook)[1].source += "\n\n\noscar = True\n"
    return notebook


def test_nbgrader_gives_full_marks_for_the_solution_and_none_for_nothing(tmp_path):
    stem = "22_rope"
    exercise, solution = read("exercises", stem), read("solutions", stem)
    source, hidden = with_hidden_tests(solution, number=2)
    (tmp_path / "source" / stem).mkdir(parents=True)
    nbformat.write(source, tmp_path / "source" / stem / f"{stem}.ipynb")
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    [config] = re.findall(r'echo "(.*)" > nbgrader_config.py', page)
    (tmp_path / "nbgrader_config.py").write_text(config, encoding="utf-8")
    nbgrader(tmp_path, "generate_assignment", stem, "--force")
    hand_in(tmp_path, "ann", solution, stem)
    hand_in(tmp_path, "bob", exercise, stem)
    hand_in(tmp_path, "eve", sabotaged(exercise), stem)
    hand_in(tmp_path, "mallory", with_check_redefined(exercise), stem)
    hand_in(tmp_path, "oscar", only_for_the_checks(solution), stem)
    nbgrader(tmp_path, "autograde", stem, "--create", "--force")
    nbgrader(tmp_path, "export")
    with (tmp_path / "grades.csv").open(encoding="utf-8", newline="") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    full = float(sum(graded(solution).values()))
    none = dict.fromkeys(("bob", "eve", "mallory"), 0.0)
    assert scores == {"ann": full, "oscar": full - hidden, **none}
    assert not list((tmp_path / "home").rglob("*.py"))
