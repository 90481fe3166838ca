"""What two tasks of the exercise 75_evaluation ask: how sure a score is, and which model is better."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from qwen2lite.evaluate import uncertainty
from qwen2lite.evaluate.uncertainty import Paired
from qwen2lite.learn.checks.sft import outlined
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    require_number,
    require_refusal,
    told_by,
)
from qwen2lite.learn.mutants import evaluation_uncertainty as mutants
from qwen2lite.learn.mutants.evaluation_uncertainty import MUTANTS

Part = Callable[..., Any]


def check_wilson(wilson: Part) -> Iterator[str]:
    """By hand, at both ends, for two more confidences, and what is refused."""
    _require_interval(wilson, 8, 10, 0.95)
    yield "8 right of 10: from 0.490 to 0.943"
    _require_interval(wilson, 5, 5, 0.95)
    _require_interval(wilson, 0, 5, 0.95)
    yield "5 right of 5 isn't certain, and neither is none"
    _require_interval(wilson, 61, 100, 0.8)
    _require_interval(wilson, 7000, 14_000, 0.99)
    yield "another confidence"
    for inputs, given, mutant in (
        ((0, 0, 0.95), "For no question", mutants.nothing_asked),
        ((11, 10, 0.99), "For 11 right of 10", mutants.more_than_asked),
        ((-1, 10, 0.99), "For -1 right of 10", mutants.more_than_asked),
        ((1, 2, 0.0), "For a confidence of 0", mutants.any_confidence),
        ((1, 2, 95.0), "For a confidence of 95", mutants.any_confidence),
    ):
        require_refusal(wilson, inputs, given, told_by(mutant), outlined)
    yield "what can't be counted is refused"


def _require_interval(part: Part, *inputs: Any) -> None:
    right, total, confidence = inputs
    got = call(part, *inputs, name="wilson")
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(f"wilson returned {outlined(got)}; the two ends of an interval were wanted.")
    for end in got:
        require_number(end, "an end of wilson")
    want = uncertainty.wilson(*inputs)
    if not _is_near(got, want):
        raise Mistake(
            f"{right} right of {total}, at {confidence:.0%}: from {want[0]:.4f} to {want[1]:.4f}; "
            f"yours is from {got[0]:.4f} to {got[1]:.4f}.",
            _known_interval(got, *inputs),
        )


def _is_near(got: Any, want: Any) -> bool:
    """To 1e-4: who takes 1.96 for the z of 95 % is near enough."""
    return all(abs(a - b) < 1e-4 for a, b in zip(got, want, strict=True))


def _known_interval(got: Any, *inputs: Any) -> str:
    return next((told_by(m) for m in MUTANTS["wilson"] if _is_near(got, m(*inputs))), "")


def check_paired(paired: Part) -> Iterator[str]:
    """By hand, with equal sides, without a difference, on many questions, and what is refused."""
    _require_pair(paired, 3, 1, 5, 2)
    yield "1 against 5: p = 14/64"
    _require_pair(paired, 4, 6, 0, 1)
    yield "6 against none: p = 2/64"
    _require_pair(paired, 1, 2, 2, 4)
    yield "2 against 2: p = 1"
    _require_pair(paired, 3, 0, 0, 2)
    yield "no difference at all: p = 1"
    _require_pair(paired, 50, 30, 14, 20)
    yield "30 against 14, of 114"
    for inputs, given, mutant in (
        (([True, False], [True]), "For 2 and 1 answers", mutants.other_questions),
        (([], []), "For no answer", mutants.nobody_asked),
    ):
        require_refusal(paired, inputs, given, told_by(mutant), _told)
    yield "other questions are refused, and none"


def _answers(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """What two models got right, so many questions each way, as evenly mixed as they go."""
    counts = dict(
        zip(product((True, False), repeat=2), (both, first, second, neither), strict=True)
    )
    places = sorted((i / n, kind) for kind, n in counts.items() for i in range(n))
    return [kind[0] for _, kind in places], [kind[1] for _, kind in places]


def _require_pair(part: Part, *counts: int) -> None:
    given = _answers(*counts)
    kept = tuple(map(list, given))
    got = call(part, *given, name="paired")
    if given != kept:
        raise Mistake("paired changed a list that it was given; make a new one.")
    if not isinstance(got, Paired):
        raise Mistake(f"paired returned {describe(got)}; a Paired was wanted.")
    want = uncertainty.paired(*given)
    if not _agree(got, want):
        raise Mistake(
            f"Of {len(given[0])} questions only the first model got {counts[1]} right, only the second "
            f"{counts[2]}: {_told(want)} was wanted, and yours is {_told(got)}.",
            next((told_by(m) for m in MUTANTS["paired"] if _agree(got, m(*given))), ""),
        )


def _agree(got: Paired, want: Paired) -> bool:
    sides = (got.only_first, got.only_second) == (want.only_first, want.only_second)
    return sides and isinstance(got.p, int | float) and abs(got.p - want.p) < 1e-9


def _told(got: Any) -> str:
    if not isinstance(got, Paired) or not isinstance(got.p, int | float):
        return describe(got)
    return f"{got.only_first} : {got.only_second}, p = {got.p:.4g}"
