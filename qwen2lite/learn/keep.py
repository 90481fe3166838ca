"""The learner's own package: `keep` stores a part that passed its check, `my_parts` loads them.

It lies in `my_qwen2/` in the learner's folder, one file a part; only `keep` writes there.
"""

import linecache
import os
import shutil
import symtable
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import qwen2lite
from qwen2lite.learn.check import Report, examine, is_strict, is_the_packages_own, show
from qwen2lite.learn.source import standalone_source
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.qwen2 import Parts, Qwen2

_FIELDS = {field.name: field.default for field in fields(Parts)}


def learner_home() -> Path:
    """The learner's folder: QWEN2LITE_HOME, or `work/` of the repository or current folder."""
    named = os.environ.get("QWEN2LITE_HOME")
    if named:
        return Path(named).expanduser()
    repository = Path(qwen2lite.__file__).parents[1]
    is_checkout = (repository / "pyproject.toml").is_file()
    return (repository if is_checkout else Path.cwd()) / "work"


def keep(*parts: Any, **named_parts: Any) -> None:
    """Checks parts and stores those that are right, as source, in your own package `my_qwen2/`.

    A part goes with the imports, helpers and constants of the notebook that it uses, and what was
    written is read back and checked again. An earlier version is first copied to `my_qwen2/old/`.
    Like `check` it shows what happened, and raises only when strict. Nothing is stored while
    nbgrader grades, or a teacher's folder would fill with the answers of a class.

    Args:
        parts: functions or classes that have the name of a part, such as `apply_rope` or `SwiGLU`.
        named_parts: under the names of `Parts`, where yours is called otherwise.

    Raises:
        AssertionError: when strict, and a part was refused.
        ValueError: no such part, or one that can't be written into a file.
    """
    for name, part in _by_name(parts, named_parts).items():
        report = examine(**{name: part})
        if not report.passed:
            show(report)
            _say(f"{name} is not kept: it has to pass its check first.", refused=True)
        elif is_the_packages_own(name, part):
            _say(f"{name} is not kept: it is the package's own, and not yours.", refused=True)
        elif os.environ.get("NBGRADER_EXECUTION"):
            _say(f"{name} is right. Nothing is kept while it is graded.")
        else:
            _say(_store(name, part))


def my_parts() -> Parts:
    """The parts that you kept, and the reference for what isn't built yet.

    Raises:
        ValueError: a file in `my_qwen2/` is broken; the message names the file and the line.
    """
    folder = learner_home() / "my_qwen2"
    kept = [name for name in _FIELDS if (folder / f"{name}.py").is_file()]
    return Parts(**{name: _load(folder / f"{name}.py", name) for name in kept})


def with_parts(model: Qwen2, parts: Parts) -> Qwen2:
    """A model of other parts that shares the weights of this one, and so takes no memory.

    Args:
        model: any loaded one.
        parts: what to build the other from.

    Raises:
        RuntimeError: the parts have other parameters than the model; PyTorch names them.
    """
    other = without_weights(model.config, parts)
    other.load_state_dict(model.state_dict(), assign=True)
    return other


def without_weights(config: Qwen2Config, parts: Parts) -> Qwen2:
    """A model that has yet to be given its weights, and then is ready to answer."""
    with torch.device("meta"), WithoutInitialising():
        return Qwen2(config, parts).eval()


@dataclass(frozen=True)
class Receipt:
    """Which parts of a model are the learner's and which the reference's."""

    yours: tuple[str, ...]
    reference: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.yours) + len(self.reference)
        lines = [f"{len(self.yours)} of {total} parts of this answer ran on your code"]
        lines += [f"  {name:<20} yours" for name in self.yours]
        lines += [f"  {name:<20} reference" for name in self.reference]
        return "\n".join(lines)

    __repr__ = __str__


def receipt(parts: Parts, config: Qwen2Config | None = None) -> Receipt:
    """Says which parts of an answer ran on the learner's code.

    Args:
        parts: of the model that answered.
        config: of the same model; a dense one runs no `route` and no `moe`, one that was not made
            for long texts no `yarn` and no dual chunks, so they don't count.
    """
    idle = set() if config is None else _idle(config)
    counted = [name for name in _FIELDS if name not in idle]
    yours = tuple(n for n in counted if not is_the_packages_own(n, getattr(parts, n)))
    return Receipt(yours, tuple(n for n in counted if n not in yours))


def require_yours(parts: Parts) -> None:
    """Raises ValueError where no part is the learner's own: there is nothing to look at yet."""
    if not receipt(parts).yours:
        raise ValueError("no part of yours is kept yet; an exercise ends with keep(...)")


def _idle(config: Qwen2Config) -> set[str]:
    """Parts that a model of this config is built without."""
    idle = set() if config.num_experts else {"route", "moe"}
    if not config.yarn:
        idle.add("yarn")
    in_chunks = {"dca", "dca_positions", "dca_attend", "merge_pieces"}
    return idle | ({"attention", "attend"} if config.dual_chunk_attention_config else in_chunks)


def _say(text: str, refused: bool = False) -> None:
    print(text)
    if refused and is_strict():
        raise AssertionError(text)


def _by_name(parts: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Every part under its field of Parts: a class may have the name of the package's."""
    known = {getattr(default, "__name__", ""): name for name, default in _FIELDS.items()}
    known.update({name: name for name in _FIELDS})
    found = {known.get(getattr(part, "__name__", ""), ""): part for part in parts}
    if "" in found:
        called = getattr(found[""], "__name__", type(found[""]).__name__)
        raise ValueError(
            f"no part is called {called}; name it, as in keep(apply_rope={called}). "
            f"The parts are {', '.join(_FIELDS)}"
        )
    found.update(named)
    unknown = [name for name in found if name not in _FIELDS]
    if unknown or not found:
        what = ", ".join(unknown) or "nothing"
        raise ValueError(f"can't keep {what}: the parts are {', '.join(_FIELDS)}")
    return found


def _store(name: str, part: Any) -> str:
    """Writes the part to its file, keeping the earlier version, and says what was done."""
    folder = learner_home() / "my_qwen2"
    # Two kernels may keep the same part at once.
    path, draft = folder / f"{name}.py", folder / f"{name}.py.{os.getpid()}.new"
    text = _file_text(name, part)
    if path.is_file() and path.read_bytes() == text.encode():
        return f"{name} is kept already, in {path}."
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "__init__.py").exists():
        (folder / "__init__.py").write_text('"""My own Qwen2."""\n', encoding="utf-8", newline="\n")
    draft.write_text(text, encoding="utf-8", newline="\n")
    try:
        again = examine(**{name: _load(draft, name)})
        if not again.passed:
            raise ValueError(_only_here(name, again))
        earlier = _copy_to_old(path) if path.exists() else None
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return f"{name} is kept in {path}." + (f" The one before is {earlier}." if earlier else "")


def _file_text(name: str, part: Any) -> str:
    source = standalone_source(part)
    called = part.__name__
    if called != name:
        if name in symtable.symtable(source, name, "exec").get_identifiers():
            raise ValueError(f"{called} uses something else called {name}; rename that")
        source += f"\n\n{name} = {called}\n"
    return f'"""My {name}, kept from a notebook."""\n\n{source}'


def _only_here(name: str, report: Report) -> str:
    return (
        f"{name} passes its check in your notebook, but what keep wrote down does not pass on its "
        f"own, so nothing was changed:\n{report}"
    )


def _copy_to_old(path: Path) -> Path:
    old = path.parent / "old"
    old.mkdir(exist_ok=True)
    stem = f"{path.stem}-{datetime.now():%Y-%m-%d-%H%M%S}"
    copy, number = old / f"{stem}.py", 2
    while copy.exists():
        copy, number = old / f"{stem}-{number}.py", number + 1
    shutil.copy2(path, copy)
    return copy


def _load(path: Path, name: str) -> Callable[..., Any]:
    """Runs a file of my_qwen2 in a fresh module and returns its part."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8, or delete it") from None
    found = _load_text(text, name, path).get(name)
    if not callable(found):
        raise ValueError(f"{path} defines no {name}; the part in it has to have that name")
    return found


def _load_text(text: str, name: str, path: Path) -> dict[str, Any]:
    # Not through importlib, whose .pyc files may be stale where two versions come within a second.
    module = ModuleType(f"my_qwen2.{name}")
    module.__file__ = str(path)
    # Python's own tools (inspect, dataclasses, torch.compile) look a module up by its name.
    sys.modules[module.__name__] = module
    linecache.checkcache(module.__file__)
    try:
        exec(compile(text, module.__file__, "exec"), vars(module))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}; mend or delete it") from None
    except Exception as error:
        here = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f", line {here[-1].lineno}" if here else ""
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}{line}: {said}; mend or delete the file") from error
    return vars(module)
