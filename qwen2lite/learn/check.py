"""`check(apply_rope=apply_rope)` runs a part's contract, and says what is wrong and usually why."""

import html
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from qwen2lite.learn import checks
from qwen2lite.learn.contract import Mistake
from qwen2lite.model.qwen2 import Parts

Contract = Callable[[Any], Iterator[str]]


@dataclass(frozen=True)
class Result:
    """What became of one part."""

    name: str
    held: tuple[str, ...]
    """What the contract found to be right before it ended."""
    state: str
    """"right", "wrong" or "not written yet"."""
    wrong: str = ""
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The results of one check. Shows itself as a card in a notebook, as text elsewhere."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether every part is right."""
        return all(result.state == "right" for result in self.results)

    def __str__(self) -> str:
        return "\n".join(_as_text(result) for result in self.results)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(_as_card(result) for result in self.results)


def check(**parts: Any) -> None:
    """Runs the contract of each part on small tensors and shows what it found.

    In a notebook that is a card, and nothing is raised, so that one unfinished task doesn't end
    "Run All". Under nbgrader, or with QWEN2LITE_STRICT=1, it raises.

    Args:
        parts: what you built, under the names of `Parts` or of an exercise's tasks.

    Raises:
        AssertionError: when strict, and a part isn't right; the message is the card's.
        ValueError: no part or an unknown one was named.
    """
    report = examine(**parts)
    show(report)
    if is_strict() and not report.passed:
        raise AssertionError(str(report))


def examine(**parts: Any) -> Report:
    """Runs the contract of each part, shows nothing and raises nothing about them.

    Raises:
        ValueError: no part or an unknown one was named.
    """
    if not parts:
        raise ValueError(
            "nothing to check: name what you built, as in check(apply_rope=apply_rope)"
        )
    unknown = parts.keys() - contracts().keys()
    if unknown:
        raise ValueError(
            f"there is no check for {', '.join(sorted(unknown))}; "
            f"there are checks for {', '.join(sorted(contracts()))}"
        )
    return Report(tuple(_examine(name, part) for name, part in parts.items()))


def is_strict() -> bool:
    """Whether a wrong part raises: while nbgrader grades, or with QWEN2LITE_STRICT=1."""
    return bool(os.environ.get("NBGRADER_EXECUTION")) or os.environ.get("QWEN2LITE_STRICT") == "1"


@cache
def contracts() -> dict[str, Contract]:
    """Contracts by the name of its part: the functions check_NAME in the files of `checks/`."""
    found: dict[str, Contract] = {}
    for file in pkgutil.iter_modules(checks.__path__, checks.__name__ + "."):
        module = importlib.import_module(file.name)
        for name, value in vars(module).items():
            if name.startswith("check_") and value.__module__ == module.__name__:
                found[name.removeprefix("check_")] = value
    return found


def is_the_packages_own(name: str, part: Any) -> bool:
    """Whether a part is not somebody's work but the package's."""
    written_in = getattr(part, "__module__", None) or ""
    is_default = any(field.name == name and field.default is part for field in fields(Parts))
    is_mutant = written_in.startswith("qwen2lite.learn.")
    return is_default or (written_in.startswith("qwen2lite.") and not is_mutant)


def _examine(name: str, part: Any) -> Result:
    held: list[str] = []

    def ended(state: str, wrong: str = "", reason: str = "") -> Result:
        return Result(name, tuple(held), state, wrong, reason)

    try:
        if not callable(part):
            kind = type(part).__name__
            raise Mistake(f"{name} is of type {kind}; the function itself is wanted, without ().")
        for fact in contracts()[name](part):
            held.append(fact)
    except NotImplementedError as error:
        said = "".join(str(error).splitlines()[:1])
        if said and 'required "forward"' not in said:  # PyTorch's own; a stub says nothing
            return ended("wrong", f"{name} raised NotImplementedError: {said}")
        return Result(name, tuple(held), "not written yet", note=said)
    except Mistake as mistake:
        return ended("wrong", mistake.wrong, mistake.reason)
    except Exception as error:  # an answer so unlike the wanted one that the contract stumbled
        said = f"{type(error).__name__}: {error}"
        return ended("wrong", f"{name} gave an answer that can't be examined ({said}).")
    if is_the_packages_own(name, part):
        note = "This is the package's own: right, but not your work."
        return Result(name, tuple(held), "wrong" if is_strict() else "right", note=note)
    return ended("right")


def show(thing: Any) -> None:
    """Displays something in a notebook; prints it elsewhere."""
    # Looked up, not imported: without a notebook, IPython need not even be installed.
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(thing)
    else:
        print(thing)


_SIGNS = {"right": "✓", "wrong": "✗", "not written yet": "○"}
# JupyterLab's own colours, so that the card suits its light and its dark theme.
_COLOURS = {
    "right": "var(--jp-success-color1, #388e3c)",
    "wrong": "var(--jp-error-color1, #d32f2f)",
    "not written yet": "var(--jp-ui-font-color2, #757575)",
}


def _as_text(result: Result) -> str:
    lines = [f"{_SIGNS[result.state]} {result.name}: {result.state}"]
    lines += [f"    ✓ {fact}" for fact in result.held]
    if result.wrong:
        lines.append(f"    ✗ {result.wrong}")
    if result.reason:
        lines.append(f"    → {result.reason}")
    if result.note:
        lines.append(f"    {result.note}")
    return "\n".join(lines)


def _as_card(result: Result) -> str:
    colour, escape = _COLOURS[result.state], html.escape
    rows = [
        f'<div style="color:{colour};font-weight:600">{_SIGNS[result.state]} '
        f"{escape(result.name)}: {result.state}</div>"
    ]
    rows += [f'<div style="opacity:.75">✓ {escape(fact)}</div>' for fact in result.held]
    if result.wrong:
        rows.append(f'<div style="margin-top:.4em">✗ {escape(result.wrong)}</div>')
    if result.reason:
        rows.append(f"<div>→ {escape(result.reason)}</div>")
    if result.note:
        rows.append(f"<div>{escape(result.note)}</div>")
    style = f"border-left:4px solid {colour};padding:.3em 0 .3em .9em;margin:.3em 0;max-width:50em"
    return f'<div style="{style}">{"".join(rows)}</div>'
