"""The learner's own folder: lessons and exercises are copied there once, and never overwritten."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from qwen2lite.learn.keep import learner_home
from qwen2lite.weights.sources import default_model

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("notebooks", "exercises")
_MANIFEST = ".copied.json"


def sync(work: Path | None = None, course: Path = REPOSITORY) -> list[Path]:
    """Brings new and updated notebooks into the work folder.

    A copy that the learner hasn't changed is replaced. One that was changed stays, and the update
    arrives beside it as NAME.new.ipynb; a changed NAME.new.ipynb stays too, under the next free name.

    Args:
        work: the learner's folder.
        course: the repository.

    Returns:
        The files that were written.

    Raises:
        OSError: the folder can't be made, with the variable that chooses another.
    """
    work = work or learner_home()
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"can't write the lessons to {work} ({error.strerror}); set QWEN2LITE_HOME to another "
            "folder"
        ) from None
    manifest = work / _MANIFEST
    copied = _read_manifest(manifest)
    written = []
    for source in (path for name in FOLDERS for path in sorted((course / name).glob("*.ipynb"))):
        name = f"{source.parent.name}/{source.name}"
        content = source.read_bytes()
        if copied.get(name) == _digest(content) and (work / name).is_file():
            continue
        target = _free_place(work / name, copied.get(name), content)
        if target is not None:
            _write_whole(target, content)
            written.append(target)
        copied[name] = _digest(content)
        _write_whole(manifest, json.dumps(copied, indent=1).encode())
    return written


def _read_manifest(manifest: Path) -> dict[str, str]:
    """What was copied, by name. Without it, or where it is damaged, every copy counts as changed."""
    try:
        copied = json.loads(manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return copied if isinstance(copied, dict) else {}


def _free_place(place: Path, copied: str | None, content: bytes) -> Path | None:
    """Where an update may go without touching the learner's work; None where it already lies."""
    candidates = [place, place.with_suffix(".new.ipynb")]
    candidates += [place.with_suffix(f".new{number}.ipynb") for number in range(2, 100)]
    for candidate in candidates:
        if not candidate.exists():
            return candidate
        found = _digest(candidate.read_bytes())
        if found == _digest(content):
            return None
        if candidate == place and found == copied:
            return candidate
    raise ValueError(f"{place.parent} holds a hundred updates of {place.name}; move some away")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    """Writes aside and renames, so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    aside.replace(path)


def lab() -> None:
    """Copies what is new and opens JupyterLab on the first lesson, until it is closed.

    Raises:
        OSError: JupyterLab isn't installed or doesn't start.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise OSError(
            "JupyterLab isn't installed; run: "
            'python -m pip install -c constraints.txt -e ".[course]"'
        )
    work = learner_home().resolve()
    for path in sync(work):
        print(f"new in your folder: {path}")
    command = [sys.executable, "-m", "jupyterlab", "notebooks/00_start_here.ipynb"]
    command += [
        # Else the lesson's own folder is all that the browser may open.
        f"--ServerApp.root_dir={work}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = {**os.environ, "QWEN2LITE_HOME": str(work)}
    with subprocess.Popen(command, cwd=work, env=environment) as server:
        status = _end_of(server)
    if status:
        raise OSError(
            f"JupyterLab ended with status {status}; what it says above may stand in "
            "docs/troubleshooting.md"
        )


def _end_of(server: "subprocess.Popen[bytes]") -> int:
    """Its status. At Ctrl-C JupyterLab asks whether to end, and trainings in its kernels go on."""
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue


def lesson_model() -> str:
    """The model for a lesson's real-weights moment: the fetched 0.5B, else the tiny one in data/."""
    return default_model() or str(REPOSITORY / "data" / "qwen2-tiny")


def lesson_sentences() -> dict[str, list[str]]:
    """The same six sentences in 27 languages, by the languages' codes."""
    lines = (REPOSITORY / "data" / "languages.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["language"]: row["sentences"] for row in map(json.loads, lines)}
