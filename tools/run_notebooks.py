"""Runs lessons in place and keeps of them only what belongs in the repository.

python tools/run_notebooks.py               all of notebooks/
python tools/run_notebooks.py 22_rope       one
python tools/run_notebooks.py --check       run nothing; fail where a lesson isn't as it should be
"""

import argparse
import ast
import functools
import hashlib
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

LESSONS = Path(__file__).parents[1] / "notebooks"
PACKAGE = Path(__file__).parents[1] / "qwen2lite"
LARGEST = 600_000  # bytes
LONGEST_CELL = 15  # lines
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="stems of lessons, such as 22_rope; default: all")
    parser.add_argument("--check", action="store_true", help="only look")
    flags = parser.parse_args()
    paths = [LESSONS / f"{name}.ipynb" for name in flags.names] or sorted(LESSONS.glob("*.ipynb"))
    if flags.check:
        found = [f"{path.name}: {fault}" for path in paths for fault in faults(path)]
        print("\n".join(found) or f"{len(paths)} lessons are as they should be")
        return bool(found)
    for path in paths:
        start = time.perf_counter()
        run(path)
        print(
            f"{path.name}: {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e3:.0f} kB"
        )
    return 0


def run(path: Path) -> None:
    """Executes a lesson in a fresh kernel, as JupyterLab would from the lesson's own folder."""
    lesson = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        os.environ["QWEN2LITE_HOME"] = home
        place = {"metadata": {"path": path.parent}}
        client = NotebookClient(lesson, timeout=120, resources=place)
        client.on_notebook_start = lambda notebook: ask_every_second(client)
        client.execute()
    clean(lesson, path.stem)
    text = nbformat.writes(lesson) + "\n"
    if len(text) > LARGEST:
        sys.exit(
            f"{path.name} would have {len(text)} bytes, at most {LARGEST} are fine: fewer pictures"
        )
    path.write_text(text, encoding="utf-8", newline="\n")


def ask_every_second(client: NotebookClient) -> None:
    """Looks for a cell's reply anew each second, in place of waiting to be told of it.

    Where a cell draws into a widget, nbclient writes to the channel that the reply comes from, and zmq
    tells of a message once: now and then nobody hears of it, and the cell seems to run for ever.
    """
    get_msg = client.kc.shell_channel.get_msg

    async def patient(timeout: float | None = None) -> dict[str, Any]:
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            try:
                return await get_msg(timeout=1)
            except Empty:
                if time.monotonic() > end:
                    raise

    client.kc.shell_channel.get_msg = patient


def clean(lesson: nbformat.NotebookNode, stem: str) -> None:
    """Stable ids; no widget state, no times, nothing of the machine; what was printed in one piece."""
    CoalesceStreamsPreprocessor().preprocess(lesson, {})
    lesson.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    lesson.nbformat_minor = 5
    for place, cell in enumerate(lesson.cells):
        cell.id = stable_id(stem, place)
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}


def stable_id(stem: str, place: int) -> str:
    return hashlib.sha1(f"{stem}{place}".encode()).hexdigest()[:8]


def faults(path: Path) -> list[str]:
    """What keeps a lesson from being committed."""
    lesson = nbformat.read(path, as_version=4)
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not every cell was run once, from the first to the last")
    if any(out.output_type == "error" for cell in code for out in cell.outputs):
        found.append("a cell ended in an error")
    if [c.id for c in lesson.cells] != [stable_id(path.stem, i) for i in range(len(lesson.cells))]:
        found.append("the ids of its cells are not the stable ones")
    pairs = (pair for cell in code for pair in pairwise(cell.outputs))
    if any(a.output_type == b.output_type == "stream" and a.name == b.name for a, b in pairs):
        found.append("what a cell prints is in pieces, which web pages show apart")
    if path.stat().st_size > LARGEST:
        found.append(f"larger than {LARGEST} bytes")
    found = [f"{fault}; run: python tools/run_notebooks.py {path.stem}" for fault in found]
    for cell in code:
        lines, first = cell.source.count("\n") + 1, cell.source.split("\n")[0]
        if lines > LONGEST_CELL:
            found.append(f"a cell of {lines} lines, at most {LONGEST_CELL} are fine: {first!r}")
        for name in defined(cell.source) & package_names():
            found.append(f"defines {name}, which the package defines: show that one, or rename it")
    return found


def defined(source: str) -> set[str]:
    """Functions and classes that a cell defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(source).body if isinstance(node, kinds)}


@functools.cache
def package_names() -> set[str]:
    """Public functions and classes of the package, without the course's wrong versions."""
    files = [file for file in PACKAGE.rglob("*.py") if "mutants" not in file.parts]
    found = set().union(*(defined(file.read_text(encoding="utf-8")) for file in files))
    return {name for name in found if not name.startswith("_")}


if __name__ == "__main__":
    sys.exit(main())
