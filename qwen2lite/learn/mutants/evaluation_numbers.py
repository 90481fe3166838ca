"""Wrong answers to a task of the exercise 75_evaluation: the last number of a text.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import re
from collections.abc import Callable
from typing import Any

_RIGHT = r"(?:(?<![0-9)])-)?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?"


def last(pattern: str, text: str) -> float | None:
    """The last match as a number, or None."""
    found = re.findall(pattern, text)
    return float(found[-1].replace(",", "")) if found else None


def thousands_cut(text: str) -> float | None:
    """Of "1,234" only 234 is read, as if it were a number by itself. A comma that three digits follow
    belongs to the number; it has to be in the pattern, and taken out before float."""
    numbers = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", text)
    return float(numbers[-1]) if numbers else None


def commas_dropped(text: str) -> float | None:
    """Every comma is taken for part of a number, and "3,4", two numbers, becomes 34. A comma belongs to
    a number only where three digits follow."""
    return last(_RIGHT, text.replace(",", ""))


def minus_always(text: str) -> float | None:
    """A minus is a sign, wherever it stands: the last of "10-12" is read as −12. After a digit or a
    bracket it is a subtraction or a dash; (?<![0-9)]) asks what stands before."""
    return last(r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?", text)


def sign_lost(text: str) -> float | None:
    """The sign is lost: −5 is read as 5. A minus that nothing stands before belongs to the number."""
    return last(_RIGHT.replace(r"(?:(?<![0-9)])-)?", ""), text)


def first_number(text: str) -> float | None:
    """This is the first number. An answer works its way to the result: the last one counts."""
    found = re.findall(_RIGHT, text)
    return float(found[0].replace(",", "")) if found else None


def whole_numbers_only(text: str) -> float | None:
    """Of "2.50" only 50 is read, as if it were a number by itself. A full stop with digits behind it
    belongs to the number."""
    return last(_RIGHT.replace(r"(?:\.[0-9]+)?", ""), text)


def full_stop_refused(text: str) -> float | None:
    """A number at the end of a sentence isn't seen: in "42." the full stop isn't part of it, and in
    the way of a pattern that wants a space after the number."""
    return last(_RIGHT + r"(?!\S)", text)


def none_as_zero(text: str) -> float:
    """Where no number is written, 0 is returned, and may even be right. Return None there: it is worth
    knowing how often a model gives no number."""
    return last(_RIGHT, text) or 0.0


def zero_as_none(text: str) -> float | None:
    """0 is taken for no number, as it is false in Python. Ask whether something was found, and not
    whether it is true."""
    return last(_RIGHT, text) or None


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "mended_number": (
        minus_always, thousands_cut, commas_dropped, sign_lost, first_number, whole_numbers_only,
        full_stop_refused, none_as_zero, zero_as_none,
    ),
}  # fmt: skip
"""The wrong versions of the task."""
