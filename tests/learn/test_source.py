"""What a part of a notebook needs is found, written down, and nothing else is."""

import linecache
import sys
from types import ModuleType

import pytest

from qwen2lite.learn.source import standalone_source


def alone(text, name):
    namespace: dict = {}
    exec(compile(text, "alone", "exec"), namespace)
    return namespace[name]


def test_imports_constants_and_helpers_go_along(cell):
    cell("import math\nimport torch.nn.functional as F\nfrom torch import cat, tensor as make\n")
    cell("import torch\nBASE, NAMES, FAR, TYPE = 10.0, ('a', 'b'), float('inf'), torch.bfloat16\n")
    cell("def double(x):\n    return 2 * x\n\nunused = object()\n")
    cell("def quadruple(x):\n    return double(double(x))\n")
    module = cell(
        "def part(x, far=FAR, *, kind: type = float):\n"
        "    rows = [quadruple(v) + BASE for v in (x, math.pi)]\n"
        "    return F.relu(cat([make(rows), make([far])])).to(TYPE), NAMES\n"
    )
    text = standalone_source(module.part)
    lines = text.splitlines()
    for line in (
        "import math",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import cat",
        "from torch import tensor as make",
        "BASE = 10.0",
        "NAMES = ('a', 'b')",
        'FAR = float("inf")',
        "TYPE = torch.bfloat16",
    ):
        assert line in lines
    assert "unused" not in text
    # The same each time, or a part that is kept again would count as another.
    assert lines[:5] == sorted(lines[:5])
    assert [line.split()[0] for line in lines[6:10]] == ["BASE", "FAR", "NAMES", "TYPE"]
    assert text.index("def double") < text.index("def quadruple") < text.index("def part")
    got, want = alone(text, "part")(1.0), module.part(1.0)
    assert got[0].tolist() == want[0].tolist() and got[1] == want[1]


@pytest.mark.parametrize(
    ("before", "used", "alone"),
    [
        ("import math", "math.pi", "import math\n\n\n"),
        ("BASE = 10.0", "BASE", "BASE = 10.0\n\n\n"),
        (
            "import torch\nTYPE = torch.bfloat16",
            "TYPE",
            "import torch\n\nTYPE = torch.bfloat16\n\n\n",
        ),
    ],
)
def test_only_what_is_used_is_imported(cell, before, used, alone):
    part = f"def part():\n    return {used}\n"
    cell(before + "\n")
    assert standalone_source(cell(part).part) == alone + part


def test_a_local_name_is_not_taken_for_a_global_one(cell):
    cell("x = object()\nvalues = object()\n")
    module = cell("def part(x):\n    values = [v for v in x]\n    return values\n")
    text = standalone_source(module.part)
    assert text == "def part(x):\n    values = [v for v in x]\n    return values\n"


def test_classes_bases_decorators_and_dataclasses(cell):
    cell("from dataclasses import dataclass\nfrom functools import cache, wraps\n")
    cell("@dataclass\nclass Size:\n    width: int = 3\n\n    def twice(self):\n        return 6\n")
    cell(
        "def loud(f):\n    @wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
    )
    cell("@cache\ndef slow(n):\n    return n + 1\n")
    module = cell(
        "class Base:\n    def width(self):\n        return Size().twice()\n\n"
        "class Part(Base):\n    kind = Size\n    borrowed = Base.width\n\n"
        "    @loud\n    def answer(self):\n"
        "        return slow(super().width())\n"
    )
    text = standalone_source(module.Part)
    assert alone(text, "Part")().answer() == 7


def test_functions_that_call_each_other(cell):
    module = cell(
        "def even(n):\n    return n == 0 or odd(n - 1)\n\n"
        "def odd(n):\n    return n != 0 and even(n - 1)\n"
    )
    assert alone(standalone_source(module.even), "even")(8) is True


def test_a_function_that_calls_itself_is_the_newest(cell):
    text = "def part(n):\n    return n and 1 + part(n - 1)\n"
    older = cell(text).part
    assert standalone_source(older) == text
    cell("def part(n):\n    return 0\n")
    with pytest.raises(ValueError, match="part has been defined again since; run its cell again"):
        standalone_source(older)


@pytest.mark.parametrize(
    ("kept", "mine", "is_one"),
    [
        ("def size():\n    return 3", "def size():\n    return 4", False),
        ("size = float", "size = int", False),
        ("size = 3000.0", "size = 4000.0", False),
        ("size = 3000.0", "size = 3000.0", True),
        ("from math import pi as size", "from math import pi as size", True),
    ],
)
def test_two_things_of_one_name_are_never_mixed(cell, monkeypatch, kept, mine, is_one):
    """A part may call one that was kept earlier, which has helpers of its own."""
    earlier = ModuleType("my_qwen2.earlier")
    monkeypatch.setitem(sys.modules, earlier.__name__, earlier)
    text = f"{kept}\n\ndef wide():\n    return size\n"
    monkeypatch.setitem(linecache.cache, "earlier.py", (1, None, text.splitlines(True), ""))
    exec(compile(text, "earlier.py", "exec"), vars(earlier))
    module = cell(f"{mine}\n")
    module.wide = earlier.wide
    part = cell("def part():\n    return size, wide()\n").part
    if is_one:
        assert alone(standalone_source(part), "part")() == part()
    else:
        with pytest.raises(ValueError, match="two different things are called size; rename"):
            standalone_source(part)


def test_the_newest_cell_counts_and_magics_do_no_harm(cell):
    cell("def part():\n    return 1\n")
    module = cell("def part():\n    return 2\n")
    name = module.part.__code__.co_filename
    lines = ["%time\n", *linecache.cache[name][2]]
    moved = compile("\n" + "".join(lines[1:]), name, "exec")
    linecache.cache[name] = (1, None, lines, name)
    exec(moved, vars(module))
    assert standalone_source(module.part) == "def part():\n    return 2\n"


def test_of_two_in_a_cell_the_lines_of_the_last_are_taken_and_no_more(cell):
    module = cell("def part(): return 1\ndef part(): return 2\nwidth = 3\n")
    assert standalone_source(module.part) == "def part(): return 2\n"


def test_a_cell_whose_text_is_gone_is_said(cell):
    module = cell("def part():\n    return 1\n")
    del linecache.cache[module.part.__code__.co_filename]
    with pytest.raises(ValueError, match="source of part is not to be found; run its cell again"):
        standalone_source(module.part)


@pytest.mark.parametrize(
    ("before", "text", "said"),
    [
        ("import torch\ntable = torch.ones(3)", "def part(x):\n    return table * x", "a Tensor"),
        ("thing = object()", "def part(x):\n    return thing", "part uses thing, a object"),
        ("", "part = lambda x: x", "no source"),
        ("short = lambda x: x", "def part(x):\n    return short(x)", "which is <lambda>"),
        ("", "part = len", "no source"),
        (
            "def make(k):\n    def part(x):\n        return k * x\n    return part",
            "part = make(2)",
            "uses k of the function around it",
        ),
        ("", "class part:\n    width = 3", "class` with a method"),
    ],
)
def test_what_cannot_be_written_down_is_said(cell, before, text, said):
    cell(before + "\n")
    module = cell(text + "\n")
    with pytest.raises(ValueError, match=said):
        standalone_source(module.part)
