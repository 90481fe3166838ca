"""What the other tasks of the exercise 75_evaluation ask: ln p of an option, which one, what number."""

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    one_number,
    random_normal,
    told_by,
)
from qwen2lite.learn.mutants import evaluation_numbers
from qwen2lite.learn.mutants.evaluation_tasks import MUTANTS, from_the_end, in_bfloat16, values

Part = Callable[..., Any]


def check_option_logp(option_logp: Part) -> Iterator[str]:
    """By hand, with padding, of a single token, of a long option, and with logits in bfloat16."""
    p_TV = [[0.3, 0.6, 0.1], [0.7, 0.2, 0.1], [0.1, 0.4, 0.5], [0.2, 0.3, 0.5], [0.25, 0.25, 0.5]]
    by_hand = torch.tensor(p_TV).log() + 1, [0, 1, 1], [2, 0]
    _require_logp(option_logp, *by_hand, "A prompt of 3 tokens, an option of p = 0.5 and 0.2")
    yield f"two tokens of p = 0.5 and 0.2: ln 0.1 = {math.log(0.1):.4f}"
    logits_TV = random_normal(12, 7)
    _require_logp(
        option_logp, logits_TV, [5, 3, 0, 1], [6, 0, 2], "An option of 3 and 5 of padding"
    )
    yield "whatever stands behind the option doesn't count"
    _require_logp(option_logp, logits_TV[:2], [3], [4], "A prompt and an option of one token each")
    _require_logp(option_logp, logits_TV, [3, 6], [0], "An option of one token, and padding")
    yield "an option of one token"
    long = [(3 * i) % 7 for i in range(296)]
    many = random_normal(300, 7, seed=1)
    _require_logp(option_logp, many, [1, 2, 3, 4], long, "An option of 296 tokens")
    yield "a long option"
    halved = (4 * many).bfloat16()
    _require_logp(option_logp, halved, [1, 2, 3, 4], long[:100], "Logits in bfloat16")
    yield "logits in bfloat16: to more than three digits"


def _require_logp(
    part: Part, logits_TV: Tensor, prompt: list[int], option: list[int], what: str
) -> None:
    given = list(prompt), list(option)
    got = one_number(call(part, logits_TV, *given, name="option_logp"), "option_logp")
    if given != (prompt, option):
        raise Mistake("option_logp changed a list that it was given; make a new one.")
    logp_TV = logits_TV.double().log_softmax(-1)
    rows = range(len(prompt) - 1, len(prompt) - 1 + len(option))
    want = math.fsum(float(logp_TV[row, token]) for row, token in zip(rows, option, strict=True))
    if _is_near(got, want):
        return
    raise Mistake(
        f"{what}: ln p is {want:.4f}, and yours is {got:.4f}.",
        _why(part, got, want, logits_TV, prompt, option),
    )


def _why(
    part: Part, got: float, want: float, logits_TV: Tensor, prompt: list[int], option: list[int]
) -> str:
    for mutant in MUTANTS["option_logp"]:
        if _is_near(got, mutant(logits_TV, prompt, option)):
            return told_by(mutant)
    # Each way of adding up in bfloat16 rounds in its own way, and each way of counting from the end
    # meets something else there.
    if logits_TV.dtype == torch.bfloat16 and abs(got - want) < 0.05 * abs(want):
        return told_by(in_bfloat16)
    unpadded = logits_TV[: len(prompt) + len(option)].clone()
    with contextlib.suppress(Exception):  # what it can't answer is no reason
        if _is_near(float(part(unpadded, list(prompt), list(option))), want):
            return told_by(from_the_end)
    return ""


def _is_near(got: float, want: float) -> bool:
    return math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-4)


_NAMES = ("by", "choices", "tokens", "logps", "alone")
Options = tuple[tuple[str, ...], tuple[int, ...], tuple[float, ...], tuple[float, ...]]
_CASES: dict[str, tuple[tuple[Options, ...], str]] = {
    "sum": (
        (
            (("red", "blue", "green"), (1, 1, 1), (-3.0, -1.0, -2.0), (-1.0, -1.0, -1.0)),
            (("one", "two", "six"), (1, 1, 1), (-1.0, -4.0, -1.0), (-1.0, -1.0, -1.0)),
            (("a long way", "near"), (3, 1), (-5.0, -6.0), (-9.0, -9.0)),
        ),
        "by the sum, and of equals the first",
    ),
    "token": (
        (
            (("red", "the old mill"), (1, 3), (-2.0, -3.0), (-1.0, -1.0)),
            (("Amberley", "up to me"), (2, 1), (-4.0, -3.5), (-1.0, -1.0)),
            (("Amberley", "up to me"), (2, 3), (-4.0, -9.0), (-1.0, -1.0)),
            (("cat", "rhinoceros"), (1, 5), (-1.0, -0.9), (-1.0, -1.0)),
            (("cat", "hamster"), (1, 2), (-3.0, -2.0), (-1.0, -1.0)),
        ),
        "a token: by the mean",
    ),
    "byte": (
        (
            (("yes", "certainly"), (1, 1), (-2.0, -4.0), (-1.0, -1.0)),
            (("Köln Süd", "Munster"), (1, 1), (-5.0, -4.0), (-1.0, -1.0)),
            (("a", "bicycling"), (1, 1), (-1.0, -6.0), (-1.0, -1.0)),
        ),
        "a byte, of UTF-8 and with the space",
    ),
    "unconditional": (
        (
            (("the", "Elmford"), (1, 2), (-2.0, -4.0), (-2.5, -9.0)),
            (("a cat", "it"), (2, 1), (-3.0, -2.0), (-5.0, -1.0)),
            (("dog", "pony"), (1, 1), (-1.0, -2.0), (-1.5, -2.2)),
            (("dog", "pony"), (1, 1), (-2.0, -3.0), (-6.0, -4.5)),
            (("no", "perhaps"), (1, 1), (-2.0, -8.0), (-3.0, -10.0)),
        ),
        "over its own probability without the question",
    ),
}  # fmt: skip


def check_picked_option(picked_option: Part) -> Iterator[str]:
    """Each way on several questions; what is known of a mistake comes from all of a way's answers."""
    for by, (cases, what) in _CASES.items():
        got = [
            _number(call(picked_option, by, *case, name="picked_option"), case) for case in cases
        ]
        want = [_taken(by, case) for case in cases]
        if got != want:
            wrong = next(
                i for i, pair in enumerate(zip(got, want, strict=True)) if len({*pair}) > 1
            )
            inputs = dict(zip(_NAMES, (by, *cases[wrong]), strict=True))
            shown = ", ".join(f"{name} = {value}" for name, value in inputs.items())
            known = (m for m in MUTANTS["picked_option"] if [m(by, *case) for case in cases] == got)
            raise Mistake(
                f"With {shown} the option {want[wrong]} is taken, and you took {got[wrong]}.",
                next(map(told_by, known), ""),
            )
        yield what


def _taken(by: str, case: Options) -> int:
    found = values(by, *case)
    return found.index(max(found))


def _number(got: Any, case: Options) -> int:
    if not isinstance(got, bool):
        with contextlib.suppress(TypeError):
            return operator.index(got)
    raise Mistake(
        f"picked_option returned {describe(got)} for {len(case[0])} options; a whole number from 0 to "
        f"{len(case[0]) - 1} was wanted."
    )


def check_mended_number(mended_number: Part) -> Iterator[str]:
    """Sentence by sentence: what a model may write, and what its last number is."""
    for what, texts in (
        ("the last number, not the first", {"3 red ones and 4 blue ones: that is 7 in all": 7}),
        ("decimals", {"That makes 2.50 dollars": 2.5, "0.125 of it is left": 0.125}),
        ("a full stop ends a sentence", {"At first 5. The answer is 42.": 42, "It is 18!": 18}),
        ("no number", {"I don't know.": None, "": None}),
        ("0 is a number", {"Of the 8 apples there are 0 left": 0}),
        ("thousands", {"She earned $1,234 a month": 1234, "Altogether 1,234,567.50": 1234567.5}),
        ("a comma between two numbers", {"Their ages are 3,4": 4, "So 5, 7, 11, and so on": 11}),
        ("a minus that is a sign", {"At night it was -5 degrees": -5, "x = -1,200.5": -1200.5}),
        ("a minus that isn't", {"It took 10-12 days": 12, "(3+4)-2 of them": 2}),
    ):
        for text, want in texts.items():
            _require_last(mended_number, text, want)
        yield what


def _require_last(part: Part, text: str, want: float | None) -> None:
    # In a tuple, for here None may be an answer.
    (got,) = call(lambda text: (part(text),), text, name="mended_number")
    if isinstance(got, bool) or not isinstance(got, int | float | Decimal | None):
        raise Mistake(f"mended_number returned {describe(got)}; a number was wanted, or None.")
    if (got is None) != (want is None) or (got is not None and float(got) != want):
        known = evaluation_numbers.MUTANTS["mended_number"]
        raise Mistake(
            f"In {text!r} the last number is {_written(want)}, and yours is {_written(got)}.",
            next((told_by(m) for m in known if _same(m(text), got)), ""),
        )


def _same(one: Any, other: Any) -> bool:
    return one is other if one is None or other is None else float(one) == float(other)


def _written(value: Sequence[Any] | float | Decimal | None) -> str:
    return str(value)
