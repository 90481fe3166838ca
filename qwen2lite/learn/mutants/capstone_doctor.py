"""Wrong answers to the last tasks of the exercise 90_capstone: to compare, and to find the fault.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Record = list[tuple[str, Tensor]]
Answers = dict[str, str]


def absolute(mine: Record, reference: Record, tolerance: float) -> str | None:
    """The difference itself is compared with the tolerance. Logits around 20 and updates around 0.01
    need the same measure: divide by the largest number of the reference."""
    return _first(mine, reference, lambda got, want: bool(_apart(got, want) > tolerance))


def number_by_number(mine: Record, reference: Record, tolerance: float) -> str | None:
    """Every number is divided by its own counterpart. Some of these are next to 0, and there rounding
    alone is as large as they are: divide by the *largest* of the reference."""
    return _first(
        mine, reference, lambda got, want: bool(((got - want).abs() > tolerance * want.abs()).any())
    )


def signs_left(mine: Record, reference: Record, tolerance: float) -> str | None:
    """The difference is taken with its sign, so that what is too small never counts. Take `.abs()`
    before the largest."""
    return _first(
        mine, reference, lambda got, want: bool((got - want).max() > tolerance * want.abs().max())
    )


def mean_of_differences(mine: Record, reference: Record, tolerance: float) -> str | None:
    """The average is compared. One wrong position among a thousand right ones disappears in it: take
    the largest."""
    return _first(
        mine,
        reference,
        lambda got, want: bool((got - want).abs().mean() > tolerance * want.abs().max()),
    )


def nan_unseen(mine: Record, reference: Record, tolerance: float) -> str | None:
    """A NaN passes, because NaN > tolerance is False, as every comparison with NaN. Ask the other way
    round, `not difference <= …`, or for isnan."""
    return _first(
        mine, reference, lambda got, want: bool(_apart(got, want) > tolerance * want.abs().max())
    )


def zero_by_zero(mine: Record, reference: Record, tolerance: float) -> str | None:
    """Where the reference is 0 everywhere it divides by 0, and 0/0 is NaN: two equal tensors then
    differ. (The sine of position 0 is such a place.) Multiply the other side instead of dividing."""
    return _first(
        mine,
        reference,
        lambda got, want: not bool(_apart(got, want) / want.abs().max() <= tolerance),
    )


def zeros_left_out(mine: Record, reference: Record, tolerance: float) -> str | None:
    """Where the reference is 0 everywhere nothing is compared. There every other number is a
    difference."""
    return _first(
        mine,
        reference,
        lambda got, want: bool(want.any()) and not _near(got, want, tolerance),
    )


def spread_out(mine: Record, reference: Record, tolerance: float) -> str | None:
    """Two shapes were compared that aren't the same: subtracting [3] from [2, 3] spreads it out, and
    nobody complains. Compare the shapes first."""
    try:
        return _first(mine, reference, lambda got, want: not _near(got, want, tolerance), False)
    except RuntimeError:
        return None


def shorter_is_enough(mine: Record, reference: Record, tolerance: float) -> str | None:
    """zip ends with the shorter list, and nobody sees that one has more places. The first place that
    only one of them has is a difference, too."""
    count = min(len(mine), len(reference))
    return _first(
        mine[:count], reference[:count], lambda got, want: not _near(got, want, tolerance)
    )


def by_name(mine: Record, reference: Record, tolerance: float) -> str | None:
    """A dict of names keeps one tensor a name, and names may repeat: queries and keys are both turned
    in apply_rope. Compare in the order of the lists."""
    firsts = dict(reference)
    return _first(
        list(dict(mine).items()),
        list(firsts.items()),
        lambda got, want: not _near(got, want, tolerance),
    )


def the_last(mine: Record, reference: Record, tolerance: float) -> str | None:
    """This is the last place that differs. An error goes on to everything after it: only the first
    tells where it comes from."""
    return _first(mine[::-1], reference[::-1], lambda got, want: not _near(got, want, tolerance))


def the_number(mine: Record, reference: Record, tolerance: float) -> Any:
    """This is the number of the place. Its name is wanted."""
    name = _first(mine, reference, lambda got, want: not _near(got, want, tolerance))
    return name if name is None else [n for n, _ in reference + mine].index(name)


def _first(
    mine: Record,
    reference: Record,
    differ: Callable[[Tensor, Tensor], bool],
    ask_shapes: bool = True,
) -> str | None:
    for (_, got), (name, want) in zip(mine, reference, strict=False):
        if (ask_shapes and got.shape != want.shape) or differ(got, want):
            return name
    longer = max(mine, reference, key=len)[min(len(mine), len(reference)) :]
    return longer[0][0] if longer else None


def _apart(got: Tensor, want: Tensor) -> Tensor:
    return (got - want).abs().max()


def _near(got: Tensor, want: Tensor, tolerance: float) -> bool:
    return bool(_apart(got, want) <= tolerance * want.abs().max())


def noise_blamed() -> Answers:
    """This part is right and rounds in another way than the reference: the difference is about 1e-7 of
    the size, the last digit of float32. Take a tolerance of 1e-4, and look for the next one."""
    return {"A": "norm", "B": "norm", "C": "rotary_tables"}


def consequence_blamed() -> Answers:
    """This part was given something wrong already, and did nothing wrong itself. The fault is where the
    *first* difference is: give first_difference the two records as they are."""
    return {"A": "attention", "B": "apply_rope", "C": "attention"}


def frequencies_blamed() -> Answers:
    """The frequencies agree: they come first of all, and there is no difference. What is made of them
    and of the positions is wrong."""
    return {"A": "attend", "B": "rotary_frequencies", "C": "norm"}


def found_healthy() -> Answers:
    """It seems sound on the text that it was given, and on most. Give it another one: all 64 tokens, or
    one far longer than 256 tokens."""
    return {"A": "", "B": "", "C": ""}


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "first_difference": (
        absolute, number_by_number, signs_left, mean_of_differences, nan_unseen, zero_by_zero,
        zeros_left_out, spread_out, shorter_is_enough, by_name, the_last, the_number,
    ),
    "culprits": (noise_blamed, consequence_blamed, frequencies_blamed, found_healthy),
}  # fmt: skip
"""The wrong versions of each task."""
