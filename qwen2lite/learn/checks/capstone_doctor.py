"""What the last tasks of the exercise 90_capstone ask: the first difference, and three patients."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.capstone_patients import PATIENTS
from qwen2lite.learn.contract import Mistake, call, describe, told_by, usual_reason
from qwen2lite.learn.mutants import capstone_doctor as wrong

Part = Callable[..., Any]
Record = list[tuple[str, Tensor]]
NAMES = ("norm", "rotary_frequencies", "rotary_tables", "apply_rope", "attend", "attention", "mlp")
"""The parts that a patient may name."""


def check_first_difference(first_difference: Part) -> Iterator[str]:
    """By hand: sizes, signs, one in many, NaN, zeros, shapes, lengths, names that repeat."""
    for said, mine, reference, tolerance, want, known in _cases():
        _require(first_difference, said, (mine, reference, tolerance), want, known)
        yield said


def _cases() -> Iterator[tuple[str, Record, Record, float, str | None, tuple[Part, ...]]]:
    """What is compared, the answer, and the mistakes that it brings to light."""
    right = [_place("a", 1.0, 2.0), _place("b", 4.0, 0.0), _place("c", 3.0, 5.0)]
    yield "two equal records: None", right, right, 1e-4, None, ()
    off = [right[0], _place("b", 4.5, 0.5), _place("c", 4.5, 6.5)]
    known: tuple[Part, ...] = (wrong.the_last, wrong.the_number)
    yield "0.5 beside 4, then 1.5 beside 5; tolerance 0.1: the first", off, right, 0.1, "b", known
    loud, louder = [_place("a", 20_000.0, 1.0)], [_place("a", 20_001.0, 1.0)]
    yield "1 beside 20,000, tolerance 0.001: None", louder, loud, 1e-3, None, (wrong.absolute,)
    known = (wrong.number_by_number,)
    yield "the 0.5 and the 1.5 again, tolerance 0.2: the second", off, right, 0.2, "c", known
    quiet, quieter = [_place("a", 0.004, 0.002)], [_place("a", 0.003, 0.002)]
    yield "0.003 in place of 0.004, tolerance 0.1", quieter, quiet, 0.1, "a", (wrong.signs_left,)
    many, spoilt = torch.ones(1000), torch.ones(1000).index_fill(0, torch.tensor([700]), 1.5)
    known = (wrong.mean_of_differences,)
    yield "one wrong number among a thousand", [("a", spoilt)], [("a", many)], 0.1, "a", known
    nan = [right[0], _place("b", float("nan"), 0.0), right[2]]
    yield "a NaN", nan, right, 1e-4, "b", (wrong.nan_unseen,)
    zero, little = [_place("sine", 0.0, 0.0), right[0]], [_place("sine", 0.0, 1e-6), right[0]]
    yield "0 beside 0: None", zero, zero, 1e-4, None, (wrong.zero_by_zero,)
    yield "0.000001 beside 0", little, zero, 1e-4, "sine", (wrong.zeros_left_out,)
    rows = [("a", torch.ones(2, 3)), right[1]]
    for length in (3, 6):
        row = [("a", torch.ones(length)), right[1]]
        said = f"the shape [{length}] in place of [2, 3]"
        yield said, row, rows, 0.1, "a", (wrong.spread_out,)
    known = (wrong.shorter_is_enough,)
    yield "the end is missing", right[:2], right, 1e-4, "c", known
    yield "one place too many", right, right[:2], 1e-4, "c", known
    turned = [_place("turn", 1.0, 2.0), right[1], _place("turn", 3.0, 4.0)]
    again = [_place("turn", 1.0, 7.0), *turned[1:]]
    yield "a name that comes twice", again, turned, 1e-4, "turn", (wrong.by_name,)


def _place(name: str, *values: float) -> tuple[str, Tensor]:
    return name, torch.tensor(values)


def _require(
    part: Part,
    said: str,
    given: tuple[Record, Record, float],
    want: str | None,
    known: tuple[Part, ...],
) -> None:
    mine, reference, tolerance = given
    # In a tuple, for here None may be an answer.
    (got,) = call(
        lambda *asked: (part(*asked),), [*mine], [*reference], tolerance, name="first_difference"
    )
    reason = usual_reason(known, got, *given)
    if got is not None and not isinstance(got, str):
        raise Mistake(
            f"first_difference returned {describe(got)}; the name of a place or None was wanted.",
            reason,
        )
    if got != want:
        raise Mistake(f"Wrong for {said}. {want!r} was wanted, and yours is {got!r}.", reason)


def check_culprits(culprits: Part) -> Iterator[str]:
    """The part at fault in each of three patients."""
    got = call(culprits)
    if not isinstance(got, dict) or got.keys() != PATIENTS.keys():
        raise Mistake(
            f"culprits returned {got!r}; a dict with the keys {', '.join(PATIENTS)} was wanted."
        )
    for name, part in PATIENTS.items():
        answer = got[name] or ""
        if answer and answer not in NAMES:
            raise Mistake(
                f"For {name} you named {answer!r}; one of {', '.join(NAMES)} was wanted.",
                _PLACE if ", " in str(answer) else "",
            )
        if answer != part:
            reasons = [told_by(m) for m in wrong.MUTANTS["culprits"] if m()[name] == answer]
            said = f"You say that {answer or 'no part'} is at fault in {name}; it isn't so."
            raise Mistake(said, *reasons[:1])
        yield f"{name}: {part}"


_PLACE = "That is a place in the record. Which part is at work there?"
