"""What the other tasks of the exercise 73_dpo ask: two of several answers, and what is dropped."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.checks.sft import outlined
from qwen2lite.learn.contract import (
    Mistake,
    call,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import dpo_tasks as mutants
from qwen2lite.learn.mutants.dpo_tasks import MUTANTS

Part = Callable[..., Any]


def check_best_and_worst(best_and_worst: Part) -> Iterator[str]:
    """By hand: rewards below 0, the answer with the number 0, two answers, some or all equal."""
    for scores, what in (
        ([0.2, 1.5, -0.7, 0.9], "numbers 1 and 2"),
        ([3.0, 1.0, 2.0], "numbers 0 and 1"),
        ([-2.5, -4.0, -1.0], "numbers 2 and 1, rewards below 0"),
        ([-1.0, 0.5], "the only two"),
        ([0.0, 1.0, 0.0, 1.0], "one of the better and one of the worse"),
        ([0.5, 0.5, 0.5], "all equal, no pair"),
        ([0.0, 0.0], "all equal, no pair"),
    ):
        _require_two(best_and_worst, scores)
        yield f"rewards {scores}: {what}"


def _require_two(part: Part, scores: list[float]) -> None:
    given = list(scores)
    # In a tuple, for here None may be an answer.
    (got,) = call(lambda values: (part(values),), given, name="best_and_worst")
    if given != scores:
        raise Mistake(
            "best_and_worst changed the list of rewards.",
            "`sort` works in place, and then the numbers of the answers are lost; `sorted` makes a "
            "new list.",
        )
    reason = usual_reason(MUTANTS["best_and_worst"], got, scores)
    found = _numbers(got, len(scores), reason)
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    want = (best, worst) if scores[best] > scores[worst] else None
    reason = usual_reason(MUTANTS["best_and_worst"], found, scores)
    if want is None and found is not None:
        raise Mistake(
            f"The rewards {scores} are all equal: None was wanted, and you gave {found}.",
            told_by(mutants.ties_accepted),
        )
    right = want is None or (
        found is not None and (scores[found[0]], scores[found[1]]) == (scores[best], scores[worst])
    )
    if not right:
        raise Mistake(f"Of the rewards {scores}, {want} was wanted; you gave {found}.", reason)


def _numbers(got: Any, count: int, reason: str) -> tuple[int, int] | None:
    """The answer as two whole numbers; those of a tensor or of NumPy count as such."""
    if got is None:
        return None
    try:
        pair = [operator.index(number) for number in got if not isinstance(number, bool)]
    except TypeError:
        pair = []
    if len(pair) == 2 and all(0 <= number < count for number in pair):
        return pair[0], pair[1]
    raise Mistake(
        f"best_and_worst returned {outlined(got)} for {count} rewards; two whole numbers from 0 to "
        f"{count - 1} were wanted, or None.",
        reason,
    )


def check_mended_drop(mended_drop: Part) -> Iterator[str]:
    """What is kept, how many, which of them, and whether chance decides anew."""
    # What a part draws moves no generator of the learner's.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, keep = random_normal(200, 100), 0.25
        got = _dropped(mended_drop, x, keep)
        _require_as_it_was(got, x, keep)
        yield "each number is as it was, or 0"
        _require_share(got, keep)
        _require_share(_dropped(mended_drop, x, 0.01), 0.01)
        yield "as many are kept as should be"
        _require_chance(got, _dropped(mended_drop, x, keep), x)
        yield "chance decides, for each number and in each call"
        if not same(_dropped(mended_drop, x, 1.0), x):
            raise Mistake("With keep = 1 all numbers should stay as they are, and not all did.")
        yield "with keep = 1 nothing is dropped"


def _dropped(part: Part, x: Tensor, keep: float) -> Tensor:
    got: Tensor = call(part, x, keep, name="mended_drop")
    require_tensor(got, x.shape, torch.float32, "mended_drop")
    return got


def _require_as_it_was(got: Tensor, x: Tensor, keep: float) -> None:
    wrong = (got != 0) & ~torch.isclose(got, x, rtol=1e-5, atol=1e-6)
    if not wrong.any():
        return
    factors, known = (got / x)[wrong], {1 / keep: mutants.rescaled, keep: mutants.made_smaller}
    usual = [m for f, m in known.items() if torch.allclose(factors, torch.tensor(f), rtol=1e-4)]
    before, after = float(x[wrong][0]), float(got[wrong][0])
    raise Mistake(
        f"With keep = {keep:g}, {before:.4f} became {after:.4f}; it should stay or become 0.",
        told_by(usual[0]) if usual else "",
    )


def _require_share(got: Tensor, keep: float) -> None:
    """Six standard deviations are allowed, and so chance refuses nobody."""
    kept = got != 0
    share, count = float(kept.float().mean()), got.numel()
    for what, axis in (("row", 1), ("column", 0)):
        shares = kept.float().mean(axis)
        if 0 < share < 1 and bool(((shares == 0) | (shares == 1)).all()):
            raise Mistake(
                f"Of each {what} of a matrix either all numbers are kept or none.",
                told_by(mutants.whole_rows),
            )
    if abs(share - keep) > 6 * (keep * (1 - keep) / count) ** 0.5:
        usual = {1.0: mutants.nothing_dropped, 1 - keep: mutants.kept_for_dropped}
        reasons = [told_by(m) for wrong, m in usual.items() if abs(share - wrong) < 0.02]
        raise Mistake(
            f"With keep = {keep:g}, {keep:.0%} of {count:,} numbers should be kept, more or less, and "
            f"{share:.1%} were.",
            reasons[0] if reasons else "",
        )


def _require_chance(got: Tensor, again: Tensor, x: Tensor) -> None:
    kept = got != 0
    if x[kept].abs().min() >= x[~kept].abs().max():
        raise Mistake(
            "No number that was dropped is larger than one that was kept.",
            told_by(mutants.largest_kept),
        )
    if torch.equal(kept, again != 0):
        raise Mistake(
            "Called twice, it kept the same numbers both times.", told_by(mutants.always_the_same)
        )
