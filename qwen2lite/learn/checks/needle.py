"""What the exercise 54_needle asks: a needle at a depth, a grid of shares, and a score to mend."""

from collections.abc import Callable, Iterator
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, require_number, told_by, usual_reason
from qwen2lite.learn.mutants.needle import MUTANTS, into_what_was_given

Part = Callable[..., Any]

_SENTENCES = ["a", "b", "c", "d"]


def check_hide(hide: Part) -> Iterator[str]:
    """Four sentences, and the needle before, between and behind them."""
    cases = {
        "at depth 0 it comes first": (0.0, 0),
        "at depth 1 it comes last": (1.0, 4),
        "at depth 0.5 in the middle": (0.5, 2),
        "between two places, at the nearer one": (0.4, 2),
        "also from below": (0.3, 1),
        "a little behind the middle, in the middle": (0.6, 2),
        "not last before it is nearer": (0.8, 3),
    }
    for fact, (depth, at) in cases.items():
        given = list(_SENTENCES)
        got = call(hide, given, "!", depth)
        if not isinstance(got, list):
            raise Mistake(f"hide returned {describe(got)}; a list of sentences was wanted.")
        want = [*_SENTENCES[:at], "!", *_SENTENCES[at:]]
        if got != want:
            raise Mistake(
                f"Sentences {_SENTENCES} and needle '!' at depth {depth} make {want}, yours {got}.",
                usual_reason(MUTANTS["hide"], got, list(_SENTENCES), "!", depth),
            )
        if given != _SENTENCES:
            wrong = "The list of sentences that hide was given holds the needle now."
            raise Mistake(wrong, told_by(into_what_was_given))
        yield fact


def _asked(length: int, depth: float, number: int) -> bool:
    """A model that finds all in short texts, and of long ones the fewer the deeper."""
    return number % 4 >= {100: 0, 200: 4 * (1 - depth), 300: 4}[length]


def check_recall_grid(recall_grid: Part) -> Iterator[str]:
    """A model of which it is known what it finds; one try, then four."""
    inputs: tuple[Any, ...] = (_asked, [100, 200, 300], [0.5, 1.0], 4)
    want = [[1.0, 1.0], [0.5, 1.0], [0.0, 0.0]]
    got = call(recall_grid, *inputs)
    if not isinstance(got, list) or not all(isinstance(row, list) for row in got):
        raise Mistake(f"recall_grid returned {describe(got)}; a list of lists was wanted.")
    if got != want:
        raise Mistake(
            f"For lengths {inputs[1]} and depths {inputs[2]} the shares are {want}, yours {got}.",
            usual_reason(MUTANTS["recall_grid"], got, *inputs),
        )
    yield "a row a length, a column a depth, and the share of each"

    numbers: list[int] = []

    def note(length: int, depth: float, number: int) -> bool:
        numbers.append(number)
        return True

    call(recall_grid, note, [100], [0.0, 1.0], 3)
    if sorted(numbers) != [0, 0, 1, 1, 2, 2]:
        wrong = f"Two cells of three tries had the numbers {numbers}; 0, 1, 2 for each were wanted."
        raise Mistake(wrong)
    yield "each try once, and with a number of its own"


def check_share_found(share_found: Part) -> Iterator[str]:
    """Outputs that begin with their prompt: all found, none found, and a key that comes late."""
    prompts = ["key 12345. key?", "key 67890. key?", "key 24680. key?", "key 13579. key?"]
    keys = ["12345", "67890", "24680", "13579"]
    cases = {
        "all keys found": ([" 12345.", " 67890.", " 24680", " 13579!"], 1.0),
        "a model that finds none": ([" 11111.", " 99999.", " I", ""], 0.0),
        "a key that comes late doesn't count": ([" 1 or 12345", " 67890.", " 2", " 3"], 0.25),
        "a key that is half right isn't found": ([" 12346.", " 67890.", " 24", " 13579"], 0.5),
    }
    for fact, (written, want) in cases.items():
        outputs = [prompt + text for prompt, text in zip(prompts, written, strict=True)]
        got = call(share_found, prompts, outputs, keys)
        require_number(got, "share_found")
        if abs(got - want) > 1e-9:
            raise Mistake(
                f"Keys {keys}, and the model wrote {written}: the share is {want}, yours {got:g}.",
                usual_reason(MUTANTS["share_found"], float(got), prompts, outputs, keys),
            )
        yield fact
