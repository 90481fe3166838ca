"""The tool that makes exercises/ from solutions/: on small notebooks written here."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "make_exercises", Path(__file__).resolve().parents[2] / "tools" / "make_exercises.py"
)
make_exercises = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_exercises)

PACKAGE = '''"""Parts."""


@marked(1)
def add(
    a: int, b: int = 2
) -> int:
    r"""Adds $a$ and b.

    Returns:
        The sum.
    """
    # a secret
    return a + b


class Counter:
    """Counts."""

    start = 5

    def __init__(self):
        # another secret
        self.n = self.start

    def up(self) -> int:
        """One more."""
        self.n += 1
        return self.n


def wrong_add(a: int, b: int = 2) -> int:
    """What is wrong: it subtracts."""
    return a - b
'''


def solution_cell(source, grade_id="task"):
    grading = {"grade": False, "grade_id": grade_id, "locked": False, "solution": True}
    return code_cell(source, {"nbgrader": {**grading, "schema_version": 3, "task": False}})


def code_cell(source, metadata=None):
    output = {"name": "stdout", "output_type": "stream", "text": ["x"]}
    return {
        "cell_type": "code",
        "metadata": metadata or {},
        "source": source,
        "outputs": [output],
        "execution_count": 7,
    }


@pytest.fixture
def course(tmp_path):
    """A repository with one module; returns how to add a solution to it."""
    (tmp_path / "solutions").mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "parts.py").write_text(PACKAGE, encoding="utf-8")

    def write(*cells, name="01_a"):
        notebook = {"cells": list(cells), "metadata": {"widgets": {}}, "nbformat": 4}
        path = tmp_path / "solutions" / f"{name}.ipynb"
        path.write_text(json.dumps({**notebook, "nbformat_minor": 5}), encoding="utf-8")
        return tmp_path

    return write


def cells(root, folder="exercises", name="01_a"):
    path = root / folder / f"{name}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(root, index=0, folder="exercises"):
    return "".join(cells(root, folder)[index]["source"])


def test_a_plain_solution_becomes_your_code_here(course):
    text = "def f(x):\n    ### BEGIN SOLUTION\n    y = x\n    return y\n    ### END SOLUTION\n\nf"
    root = course(solution_cell(text))
    assert make_exercises.main([], root) == 0
    wanted = "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n\nf"
    assert source(root) == wanted
    assert source(root, folder="solutions") == text


def test_a_named_solution_is_filled_and_its_stub_is_signature_and_docstring(course):
    root = course(solution_cell("### BEGIN SOLUTION pkg.parts:add\nold\n### END SOLUTION"))
    make_exercises.main([], root)
    full = source(root, folder="solutions")
    assert "    # a secret\n    return a + b\n" in full and "old" not in full
    stub = source(root)
    assert stub.startswith("@marked(1)\ndef add(\n    a: int, b: int = 2\n) -> int:\n")
    assert stub.endswith('    The sum.\n    """\n    raise NotImplementedError')
    assert "secret" not in stub and "###" not in stub


def test_the_stub_of_a_class_keeps_its_shape(course):
    root = course(solution_cell("### BEGIN SOLUTION pkg.parts:Counter\n### END SOLUTION"))
    make_exercises.main([], root)
    tree = ast.parse(source(root)).body[0]
    assert [type(node).__name__ for node in tree.body] == [
        "Expr",
        "Assign",
        "FunctionDef",
        "FunctionDef",
    ]
    assert all(isinstance(method.body[-1], ast.Raise) for method in tree.body[2:])
    assert "secret" not in source(root) and "One more." in source(root)


def test_find_the_bug_shows_the_mutant_without_its_confession(course):
    text = (
        "### BEGIN SOLUTION\n### INSTEAD OF pkg.parts:wrong_add as mended\n"
        "def mended(a, b):\n    return b + a\n\n\n### END SOLUTION"
    )
    root = course(solution_cell(text))
    make_exercises.main([], root)
    assert source(root) == "def mended(a: int, b: int = 2) -> int:\n    return a - b"
    assert source(root, folder="solutions") == text


def test_hidden_tests_are_left_out(course):
    text = "check(1)\n### BEGIN HIDDEN TESTS\nassert secret\n### END HIDDEN TESTS\ncheck(2)"
    root = course(code_cell(text))
    make_exercises.main([], root)
    assert source(root) == "check(1)\ncheck(2)"


def test_outputs_go_ids_stay_and_locked_cells_are_locked(course):
    grading = {"grade": True, "grade_id": "t", "locked": True, "solution": False, "points": 2}
    named = {**code_cell("a"), "id": "my-id"}
    markdown = {"cell_type": "markdown", "metadata": {}, "source": ["# T\n", "ü"]}
    root = course(named, markdown, {**named}, code_cell("b", {"nbgrader": grading}))
    make_exercises.main([], root)
    made, solved = cells(root), cells(root, "solutions")
    assert [c["id"] for c in made] == [c["id"] for c in solved]
    assert made[0]["id"] == "my-id"
    assert len({c["id"] for c in made}) == 4
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in made if "outputs" in c)
    assert made[3]["metadata"] == {"nbgrader": grading, "deletable": False, "editable": False}
    assert solved[3]["metadata"] == {"nbgrader": grading}
    raw = (root / "exercises" / "01_a.ipynb").read_bytes()
    assert raw.endswith(b"}\n") and "ü".encode() in raw and b"\r" not in raw


def test_a_second_run_changes_nothing(course):
    root = course(solution_cell("### BEGIN SOLUTION pkg.parts:add\n### END SOLUTION"))
    make_exercises.main([], root)
    first = {p: p.read_bytes() for p in root.rglob("*.ipynb")}
    assert len(first) == 2
    make_exercises.main([], root)
    assert {p: p.read_bytes() for p in root.rglob("*.ipynb")} == first
    assert make_exercises.main(["--check"], root) == 0


def test_check_finds_what_is_stale_and_writes_nothing(course, capsys):
    root = course(solution_cell("### BEGIN SOLUTION pkg.parts:add\n### END SOLUTION"))
    make_exercises.main([], root)
    part = root / "pkg" / "parts.py"
    part.write_text(PACKAGE.replace("a + b", "b + a"), encoding="utf-8")
    before = {p: p.read_bytes() for p in root.rglob("*.ipynb")}
    capsys.readouterr()
    assert make_exercises.main(["--check"], root) == 1
    said = capsys.readouterr().out
    assert "solutions/01_a.ipynb: is stale" in said and "exercises/01_a.ipynb" not in said
    assert "python tools/make_exercises.py" in said
    assert {p: p.read_bytes() for p in root.rglob("*.ipynb")} == before
    part.write_text(PACKAGE.replace("The sum", "Both"), encoding="utf-8")
    assert make_exercises.main(["--check"], root) == 1
    assert "exercises/01_a.ipynb: is stale" in capsys.readouterr().out


def test_an_exercise_without_a_solution_is_told(course, capsys):
    root = course(code_cell("1"))
    make_exercises.main([], root)
    (root / "exercises" / "99_old.ipynb").write_text("{}", encoding="utf-8")
    assert make_exercises.main(["--check"], root) == 1
    assert "exercises/99_old.ipynb: has no solution" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("### BEGIN SOLUTION\nx", "without its ### END"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "without its ### END"),
        ("### END SOLUTION", "wrong place"),
        ("### BEGIN SOLUTION pkg.parts.add\n### END SOLUTION", "wrong place or form"),
        ("### BEGIN SOLUTION pkg.none:add\n### END SOLUTION", "there is no pkg/none.py"),
        ("### BEGIN SOLUTION pkg.parts:nothing\n### END SOLUTION", "defines no nothing"),
        ("x = 1", "contradict"),
    ],
)
def test_a_cell_that_makes_no_sense_is_named(course, capsys, text, said):
    root = course(solution_cell(text))
    assert make_exercises.main([], root) == 2
    error = capsys.readouterr().err
    assert said in error and "solutions/01_a.ipynb" in error
    assert not (root / "exercises").exists()


def test_grading_that_nbgrader_would_refuse(course, capsys):
    text = "### BEGIN SOLUTION\nx\n### END SOLUTION"
    root = course(solution_cell(text), solution_cell(text))
    assert make_exercises.main([], root) == 2
    assert "stands twice" in capsys.readouterr().err
    root = course(code_cell(text))
    assert make_exercises.main([], root) == 2
    assert "contradict" in capsys.readouterr().err
    graded = {"grade": True, "grade_id": "t", "locked": True, "solution": False, "points": 0}
    root = course(code_cell("1", {"nbgrader": graded}))
    assert make_exercises.main([], root) == 2
    assert "needs points" in capsys.readouterr().err
