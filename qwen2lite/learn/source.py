"""Turns a function or class from a notebook into the text of a file that runs on its own."""

import ast
import inspect
import linecache
import math
import symtable
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch


def standalone_source(part: Any) -> str:
    """The source of a part, with the imports, constants and helpers of the notebook that it uses.

    Args:
        part: a function or class that is written out somewhere: in a notebook or a file.

    Returns:
        Python text: imports, then constants and helpers, then the part.

    Raises:
        ValueError: it has no source (a lambda, a built-in), or uses something that can't be written
            down, such as a tensor of the notebook.
    """
    collected = _Collected(part)
    collected.add(part)
    blocks = ["\n".join(sorted(collected.imports)), "\n".join(collected.constants)]
    blocks = [block for block in blocks if block]
    return "\n\n\n".join(["\n\n".join(blocks), *collected.definitions]).strip("\n") + "\n"


class _Collected:
    """What one part needs, in the order in which it has to stand."""

    def __init__(self, part: Any):
        self.home = part.__module__
        self.imports: set[str] = set()
        self.constants: list[str] = []
        self.definitions: list[str] = []
        self.seen: dict[str, Any] = {}

    def add(self, definition: Any) -> None:
        """Adds a function or class, after everything that it uses."""
        name = definition.__name__
        self.seen[name] = definition
        text = own_source(definition)
        surroundings = _globals_of(definition)
        for used in sorted(_global_names(text)):
            if used != name and used in surroundings:
                self._add_used(used, surroundings[used], by=name)
            elif used == name and surroundings.get(used, definition) is not definition:
                raise ValueError(f"{name} has been defined again since; run its cell again")
        self.definitions.append(text)

    def _is_written_by_learner(self, value: Any) -> bool:
        home = getattr(value, "__module__", None) or ""
        is_definition = isinstance(inspect.unwrap(value), FunctionType | type)
        return is_definition and (home == self.home or home.startswith("my_qwen2."))

    def _add_used(self, name: str, value: Any, by: str) -> None:
        if name in self.seen:
            if not _are_one(self.seen[name], value):
                raise ValueError(
                    f"two different things are called {name}; rename one of them, or run the cells "
                    "of both again"
                )
            return
        if isinstance(value, ModuleType):
            self.imports.add(_import_line(name, value.__name__))
        elif self._is_written_by_learner(value):
            if value.__name__ != name:
                raise ValueError(f"{by} uses {name}, which is {value.__name__}: use that name")
            self.add(value)
        elif (path := _importable(name, value, self.home)) is not None:
            module, original = path
            alias = "" if original == name else f" as {name}"
            self.imports.add(f"from {module} import {original}{alias}")
        elif (text := _written(value)) is not None:
            if "torch." in text:
                self.imports.add("import torch")
            self.constants.append(f"{name} = {text}")
        else:
            raise ValueError(
                f"{by} uses {name}, a {type(value).__name__} of your notebook that can't be "
                "written into a file: compute it inside the function, or pass it in"
            )
        self.seen[name] = value


def own_source(definition: Any) -> str:
    """The text of one function or class, as it was when it was defined.

    Raises:
        ValueError: it has none, or it is written inside another function and uses its variables.
    """
    name = getattr(definition, "__name__", type(definition).__name__)
    code = _own_code(definition)
    if code is None or name == "<lambda>":
        raise ValueError(
            f"{name} has no source to keep: write it as a `def`, or as a `class` with a method"
        )
    if set(code.co_freevars) - {"__class__"}:
        variables = ", ".join(code.co_freevars)
        raise ValueError(f"{name} uses {variables} of the function around it; make it an argument")
    # inspect.getsource finds functions of a notebook, but not its classes.
    lines = linecache.getlines(code.co_filename)
    for node in _definitions(lines):
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        last = node.end_lineno or node.lineno
        if node.name == name and first <= code.co_firstlineno <= last:
            return textwrap.dedent("".join(lines[first - 1 : last])).rstrip("\n")
    raise ValueError(
        f"the source of {name} is not to be found; run its cell again, without %%time or another "
        "magic in its first line"
    )


def _definitions(lines: list[str]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    # A cell may hold magics such as %time, which are no Python.
    python = ["\n" if line[:1] in "%!" else line for line in lines]
    for node in ast.walk(ast.parse("".join(python))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node


def _own_code(definition: Any) -> CodeType | None:
    """Code that lies inside the definition, which tells the file and the lines."""
    if not isinstance(definition, type):
        return getattr(inspect.unwrap(definition), "__code__", None)
    methods = [inspect.unwrap(v) for v in vars(definition).values() if isinstance(v, FunctionType)]
    # A dataclass has methods that no one wrote; an inherited or borrowed one lies elsewhere.
    written = [
        f.__code__
        for f in methods
        if f.__qualname__.startswith(f"{definition.__qualname__}.")
        and f.__code__.co_filename != "<string>"
    ]
    return written[0] if written else None


def _globals_of(definition: Any) -> dict[str, Any]:
    if isinstance(definition, type):
        return vars(sys.modules[definition.__module__])
    return inspect.unwrap(definition).__globals__


def _global_names(text: str) -> set[str]:
    """Names that a definition takes from its surroundings: annotations and defaults included."""
    names: set[str] = set()
    tables = [symtable.symtable(text, "part", "exec")]
    while tables:
        table = tables.pop()
        outermost = table.get_type() == "module"
        for symbol in table.get_symbols():
            # __name__ and its like exist in every file, and differ.
            if symbol.get_name().startswith("__"):
                continue
            if symbol.is_referenced() and (outermost or symbol.is_global()):
                names.add(symbol.get_name())
        tables += table.get_children()
    return names


def _import_line(name: str, module: str) -> str:
    return f"import {module}" if name == module else f"import {module} as {name}"


def _importable(name: str, value: Any, notebook: str) -> tuple[str, str] | None:
    """(module, name) under which a value can be imported, or None."""
    if isinstance(value, int | float | str | bytes | tuple | list | dict | set | torch.dtype):
        return None
    home, original = getattr(value, "__module__", None), getattr(value, "__name__", name)
    homes = [home] if isinstance(home, str) else []
    # torch.cat and its like don't say where they come from.
    homes += sorted((m for m in sys.modules if not m.startswith("_")), key=lambda m: (len(m), m))
    for module in homes:
        found = getattr(sys.modules.get(module), "__dict__", {}).get(original)
        if found is value and module not in ("__main__", notebook):
            return module, original
    return None


def _are_one(one: Any, other: Any) -> bool:
    """Whether one line of a file can stand for both: the same thing, or equal constants."""
    return one is other or (_written(one) is not None and _written(one) == _written(other))


def _written(value: Any) -> str | None:
    """A constant as Python text, or None where there is none that gives it back."""
    if isinstance(value, torch.dtype):
        return repr(value)
    if isinstance(value, torch.device):
        return f"torch.{value!r}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    try:
        return repr(value) if ast.literal_eval(repr(value)) == value else None
    except (ValueError, SyntaxError, TypeError, RuntimeError):
        return None
