"""What the exercise 85_speculation counts: tokens a step, tokens kept, and the best length."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, require_number, usual_reason
from qwen2lite.learn.mutants.speculate import MUTANTS

Part = Callable[..., Any]


def check_tokens_a_step(tokens_a_step: Part) -> Iterator[str]:
    """By hand, the paper's first figures, guesses that are never right, and such that always are."""
    for share, length, want in (
        (0.8, 2, 2.44),
        (0.9, 4, 4.0951),
        (0.5, 1, 1.5),
        (0.0, 5, 1.0),
        (0.7, 0, 1.0),
        (1.0, 4, 5.0),
    ):
        got = _tokens_a_step(tokens_a_step, share, length)
        require_number(got, "tokens_a_step")
        if abs(got - want) > 1e-4:
            raise Mistake(
                f"With drafts of {length}, of which a share of {share:g} is right, a step brings "
                f"{want:g} tokens, and yours {got:g}.",
                _same_number(got, share, length),
            )
        yield f"drafts of {length}, a share of {share:g} right: {want:g} tokens a step"


def _tokens_a_step(part: Part, share: float, length: int) -> Any:
    try:
        return call(part, share, length)
    except Mistake as mistake:
        if "ZeroDivisionError" not in mistake.wrong:
            raise
        reason = "With a share of 1 the closed form is 0 / 0. The sum of the powers is length + 1."
        raise Mistake(mistake.wrong, reason) from None


def _same_number(got: float, share: float, length: int) -> str:
    near = [m for m in MUTANTS["tokens_a_step"] if abs(m(share, length) - got) < 1e-6]
    return usual_reason(near, near[0](share, length), share, length) if near else ""


def check_accepted(accepted: Part) -> Iterator[str]:
    """A wrong guess in the middle, none, the first one; no guesses at all; random ones."""
    for guesses, chosen, want, what in (
        (
            [5, 7, 2, 4],
            [5, 7, 9, 4, 8],
            [5, 7, 9],
            "two right, and the model's token for the third",
        ),
        ([5, 7], [5, 7, 1], [5, 7, 1], "all right, and the model's token behind them"),
        ([5], [6, 3], [6], "none right: the model's token"),
        ([], [4], [4], "no guesses: a plain step"),
    ):
        _require_accepted(accepted, guesses, chosen, want)
        yield f"{what}: {want}"
    rng = random.Random(0)
    for _ in range(30):
        chosen = [rng.randrange(3) for _ in range(rng.randrange(1, 8))]
        guesses = [rng.choice([token, rng.randrange(3)]) for token in chosen[:-1]]
        wrong = [n for n, guess in enumerate(guesses) if guess != chosen[n]]
        _require_accepted(accepted, guesses, chosen, chosen[: min([*wrong, len(guesses)]) + 1])
    yield "right for thirty random drafts"


def _require_accepted(
    accepted: Part, guesses: list[int], chosen: list[int], want: list[int]
) -> None:
    given = list(guesses), list(chosen)
    got = call(accepted, *given)
    if given != (guesses, chosen):
        raise Mistake(
            "accepted changed a list that it was given.",
            "The caller still needs it: make a new list.",
        )
    if not isinstance(got, list):
        raise Mistake(f"accepted returned {describe(got)}; a list of ids was wanted.")
    if got != want:
        raise Mistake(
            f"For the guesses {guesses} the model chose {chosen}. Then {want} is written, and yours "
            f"writes {got}.",
            usual_reason(MUTANTS["accepted"], got, guesses, chosen),
        )


def check_best_length(best_length: Part) -> Iterator[str]:
    """Guesses all right, none right, in bursts, beyond the end, and random ones."""
    bursts = [True] * 14 + [False] * 6
    lengths = (0, 1, 2, 3, 5, 8, 12)
    for right, ratio, what in (
        ([True] * 60, 0.25, "all right: a long draft"),
        ([False] * 20, 0.1, "none right: no draft at all"),
        ([True, True, True, False] * 9, 0.3, "every fourth wrong"),
        (bursts * 4, 0.1, "wrong ones in bursts"),
        (bursts * 4, 1.0, "guesses as dear as a step"),
    ):
        yield f"{what}: {_require_length(best_length, right, ratio, lengths)}"
    # A draft of 20 costs 11 also where only 10 tokens are left; three of 3 cost 7.5.
    best = _require_length(best_length, [True] * 10, 0.5, (0, 3, 20))
    yield f"a draft longer than the text is paid in full: {best}"
    rng = random.Random(1)
    for _ in range(6):
        right = [rng.random() < 0.85 for _ in range(80)]
        _require_length(best_length, right, 0.2, lengths)
    yield "right for random texts"
    _require_length(best_length, bursts * 4, 0.1, lengths[::-1])
    yield "in whatever order the lengths come"


def _require_length(
    best_length: Part, right: list[bool], ratio: float, lengths: Sequence[int]
) -> int:
    taken = {length: _seconds(right, ratio, length) for length in lengths}
    want = min(taken, key=lambda length: taken[length])
    got = call(best_length, list(right), ratio, list(lengths))
    require_number(got, "best_length", whole=True)
    if got != want:
        shown = "".join("+" if one else "-" for one in right[:24]) + "…" * (len(right) > 24)
        also = f", and yours says {got}"
        if got in taken:
            also += f", which takes {taken[got]:.1f} steps' time against {taken[want]:.1f}"
        raise Mistake(
            f"For {len(right)} tokens, guessed {shown}, and {ratio:g} of a step for a guess the best "
            f"of {list(lengths)} is {want}{also}.",
            usual_reason(MUTANTS["best_length"], got, right, ratio, lengths),
        )
    return want


def _seconds(right: Sequence[bool], ratio: float, length: int) -> float:
    """Time for the whole text in steps of the model: token by token, with what is left of a draft."""
    total, left, hopeful = 0.0, 0, False
    for one in right:
        if not hopeful:
            total, left, hopeful = total + 1 + ratio * length, length, True
        hopeful = left > 0 and one
        left -= 1
    return total
