"""Showing the package's own code in a lesson, so that a lesson never holds a copy of it."""

import inspect
from typing import Any


def show_source(thing: Any) -> None:
    """Prints a function or class of the package as it stands in its file.

    Plain text, so that a test which compares a lesson's stored output notices when the code changes.

    Args:
        thing: a function, class or module.
    """
    module = inspect.getmodule(thing)
    name = getattr(module, "__name__", "").replace(".", "/")
    print(f"# {name}.py\n")
    print(inspect.getsource(thing).rstrip())
