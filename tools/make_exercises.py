"""Writes exercises/ from solutions/, and the package's code into solutions/.

    python tools/make_exercises.py            write what is stale
    python tools/make_exercises.py --check    write nothing, exit 1 where something is stale

A solution stands in a notebook between two markers, which are nbgrader's:

    ### BEGIN SOLUTION
    ...                        an exercise has `# YOUR CODE HERE` in its place
    ### END SOLUTION

    ### BEGIN SOLUTION qwen2lite.model.rope:apply_rope
    ...                        filled from the package; an exercise has its signature and docstring
    ### END SOLUTION

    ### BEGIN SOLUTION
    ### INSTEAD OF qwen2lite.learn.mutants.rope:rounded_positions as mended_tables
    ...                        "find the bug": an exercise has the mutant, under the other name
    ### END SOLUTION

What is between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` is left out of exercises.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOT_WRITTEN = "raise NotImplementedError"
_BEGIN = re.compile(r"^( *)### BEGIN SOLUTION(?: (?P<symbol>[\w.]+:\w+))? *$")
_INSTEAD = re.compile(r"^### INSTEAD OF (?P<symbol>[\w.]+:\w+) as (?P<name>\w+) *$")
_END = re.compile(r"^ *### END SOLUTION *$")
_HIDDEN = re.compile(
    r"^ *### BEGIN HIDDEN TESTS *\n.*?^ *### END HIDDEN TESTS *(\n|\Z)", re.MULTILINE | re.DOTALL
)

Notebook = dict[str, Any]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(description="Writes exercises/ from solutions/.")
    parser.add_argument("--check", action="store_true", help="only say what is stale; exit 1 then")
    options = parser.parse_args(arguments)
    try:
        stale = {p: t for p, t in wanted_files(root).items() if _read(p) != t}
    except ValueError as error:
        print(f"make_exercises: {error}", file=sys.stderr)
        return 2
    orphans = _orphans(root)
    for path in [*stale, *orphans]:
        what = "has no solution" if path in orphans else "is stale" if options.check else "written"
        print(f"{path.relative_to(root).as_posix()}: {what}")
    if options.check:
        if stale or orphans:
            print("run: python tools/make_exercises.py")
        return 1 if stale or orphans else 0
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return 1 if orphans else 0


def wanted_files(root: Path) -> dict[Path, str]:
    """What every file in solutions/ and exercises/ should contain.

    Raises:
        ValueError: a notebook that nothing sensible can be made of; names it and the cell.
    """
    wanted = {}
    for path in sorted((root / "solutions").glob("*.ipynb")):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            solution = refreshed(notebook, path.stem, root)
            exercise = without_solutions(solution, path.stem, root)
        except (ValueError, OSError) as error:
            raise ValueError(f"solutions/{path.name}: {error}") from error
        wanted[path] = as_text(solution)
        wanted[root / "exercises" / path.name] = as_text(exercise)
    return wanted


def refreshed(notebook: Notebook, stem: str, root: Path) -> Notebook:
    """A solution without outputs, with the package's code as it is now, and an id on every cell."""
    ids: set[str] = set()
    cells = []
    for index, cell in enumerate(notebook["cells"]):
        source = fill("".join(cell["source"]), root) if cell["cell_type"] == "code" else None
        clean = {
            "cell_type": cell["cell_type"],
            "id": _cell_id(cell, f"{stem}/{index}", ids),
            "metadata": cell["metadata"],
            "source": "".join(cell["source"]) if source is None else source,
        }
        if cell["cell_type"] == "code":
            clean |= {"execution_count": None, "outputs": []}
        cells.append(clean)
    _require_sound_grading(cells)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def without_solutions(solution: Notebook, stem: str, root: Path) -> Notebook:
    """The exercise of a refreshed solution."""
    cells = []
    for cell in solution["cells"]:
        if cell["cell_type"] == "code":
            source = _HIDDEN.sub("", clear(cell["source"], root)).rstrip("\n")
            cell = {**cell, "source": source}
        if cell["metadata"].get("nbgrader", {}).get("locked"):
            locked = {"deletable": False, "editable": False}
            cell = {**cell, "metadata": {**cell["metadata"], **locked}}
        cells.append(cell)
    origin = {"generated_from": f"solutions/{stem}.ipynb"}
    return {**solution, "cells": cells, "metadata": {**solution["metadata"], "qwen2lite": origin}}


def fill(source: str, root: Path) -> str:
    """A cell in which every solution that names package code holds that code."""
    return _each_solution(source, root, keep_solutions=True)


def clear(source: str, root: Path) -> str:
    """A cell in which every solution is replaced by what a learner starts from."""
    return _each_solution(source, root, keep_solutions=False)


def _each_solution(source: str, root: Path, keep_solutions: bool) -> str:
    lines = iter(source.split("\n"))
    written: list[str] = []
    for line in lines:
        begin = _BEGIN.match(line)
        if begin:
            inside = _until_end(lines)
            make = _solution if keep_solutions else _start
            written += make(begin, inside, root)
        elif re.search("### (BEGIN SOLUTION|INSTEAD OF|END SOLUTION)", line):
            raise ValueError(f"a marker in the wrong place or form: {line.strip()!r}")
        else:
            written.append(line)
    return "\n".join(written)


def _solution(begin: re.Match[str], inside: list[str], root: Path) -> list[str]:
    if begin["symbol"]:
        # Two empty lines after a definition: so wants the formatter.
        inside = [*definition(begin["symbol"], root).split("\n"), "", ""]
    return [begin[0], *inside, f"{begin[1]}### END SOLUTION"]


def _start(begin: re.Match[str], inside: list[str], root: Path) -> list[str]:
    """What a learner finds in the place of a solution."""
    instead = _INSTEAD.match(inside[0]) if inside else None
    if instead:
        return [without_docstring(definition(instead["symbol"], root, instead["name"]))]
    if begin["symbol"]:
        return [stub(definition(begin["symbol"], root))]
    return [f"{begin[1]}# YOUR CODE HERE", f"{begin[1]}{NOT_WRITTEN}()"]


def _until_end(lines: Any) -> list[str]:
    inside: list[str] = []
    for line in lines:
        if _END.match(line):
            return inside
        if _BEGIN.match(line):
            break
        inside.append(line)
    raise ValueError("### BEGIN SOLUTION without its ### END SOLUTION")


def definition(symbol: str, root: Path, name: str | None = None) -> str:
    """The text of `package.module:function_or_class`, under another name if one is given.

    Raises:
        ValueError: there is no such file or nothing of that name in it.
    """
    module, _, original = symbol.partition(":")
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise ValueError(f"{symbol}: there is no {path.relative_to(root).as_posix()}")
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == original:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found = "\n".join(text.split("\n")[first - 1 : node.end_lineno])
            return re.sub(rf"\b(def|class) {original}\b", rf"\1 {name or original}", found, count=1)
    raise ValueError(f"{symbol}: {path.name} defines no {original}")


def stub(code: str) -> str:
    """A function or class with its signatures and docstrings, and "not written" for every body."""
    node, lines = ast.parse(code).body[0], code.split("\n")
    functions = node.body if isinstance(node, ast.ClassDef) else [node]
    for function in reversed(functions):
        if isinstance(function, ast.FunctionDef):
            start = _body_start(function, lines)
            lines[start : function.end_lineno] = [" " * (function.col_offset + 4) + NOT_WRITTEN]
    return "\n".join(lines)


def without_docstring(code: str) -> str:
    """A function as it is, less its docstring, which in a mutant tells what is wrong."""
    function, lines = ast.parse(code).body[0], code.split("\n")
    if isinstance(function, ast.FunctionDef) and ast.get_docstring(function) is not None:
        del lines[function.body[0].lineno - 1 : function.body[0].end_lineno]
    return "\n".join(lines)


def _body_start(function: ast.FunctionDef, lines: list[str]) -> int:
    """Index of the first line after a function's signature and docstring."""
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        return first.end_lineno or first.lineno
    start = first.lineno - 1
    while lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return start


def _cell_id(cell: dict[str, Any], place: str, taken: set[str]) -> str:
    found = cell.get("id", "")
    while not re.fullmatch(r"[\w-]{1,64}", found) or found in taken:
        place += "+"
        found = hashlib.sha1(place.encode()).hexdigest()[:8]
    taken.add(found)
    return found


def _require_sound_grading(cells: list[dict[str, Any]]) -> None:
    """Raises ValueError for a cell that nbgrader would refuse or that would give answers away."""
    seen: set[str] = set()
    for cell in cells:
        has_solution = cell["cell_type"] == "code" and "### BEGIN SOLUTION" in cell["source"]
        grading = cell["metadata"].get("nbgrader")
        where = f"cell {(grading or {}).get('grade_id', cell['id'])}"
        if has_solution != bool(grading and grading["solution"]):
            raise ValueError(f"{where}: solution markers and nbgrader's metadata contradict")
        if not grading:
            continue
        if grading["grade_id"] in seen:
            raise ValueError(f"{where}: this grade_id stands twice")
        seen.add(grading["grade_id"])
        if grading["grade"] and not grading.get("points", 0) > 0:
            raise ValueError(f"{where}: a graded cell needs points")


def as_text(notebook: Notebook) -> str:
    """The file of a notebook, the same on every machine."""
    split = [{**c, "source": c["source"].splitlines(keepends=True)} for c in notebook["cells"]]
    return (
        json.dumps({**notebook, "cells": split}, indent=1, ensure_ascii=False, sort_keys=True)
        + "\n"
    )


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _orphans(root: Path) -> list[Path]:
    solved = {path.name for path in (root / "solutions").glob("*.ipynb")}
    return [p for p in sorted((root / "exercises").glob("*.ipynb")) if p.name not in solved]


if __name__ == "__main__":
    sys.exit(main())
