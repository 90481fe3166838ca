"""What a part of a notebook needs is found, written down, and nothing else is."""

import linecache

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
    assert text.index("def double") < text.index("def quadruple") < text.index("def part")
    got, want = alone(text, "part")(1.0), module.part(1.0)
    assert got[0].tolist() == want[0].tolist() and got[1] == want[1]


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
        "class Part(Base):\n    kind = Size\n\n    @loud\n    def answer(self):\n"
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


def test_the_newest_cell_counts_and_magics_do_no_harm(cell):
    cell("def part():\n    return 1\n")
    module = cell("def part():\n    return 2\n")
    name = module.part.__code__.co_filename
    lines = ["%time\n", *linecache.cache[name][2]]
    moved = compile("\n" + "".join(lines[1:]), name, "exec")
    linecache.cache[name] = (1, None, lines, name)
    exec(moved, vars(module))
    assert standalone_source(module.part) == "def part():\n    return 2\n"


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
