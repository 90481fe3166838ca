"""What the other tasks of the exercise 74_ppo ask: which tokens were chosen, and a whole step."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.align.logp import in_rows
from qwen2lite.learn.checks.ppo_world import END, drawn_answers, expected_score, scored
from qwen2lite.learn.checks.sft import outlined
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.ppo_tasks import MUTANTS, Chosen, right_tokens, stepped
from qwen2lite.train.loss import IGNORED

Part = Callable[..., Any]
_LIMIT = 5
_FIRST = (
    "The step uses the functions of tasks 1 to 4: are their checks green? Then compare with the list "
    "above, point by point."
)


def check_chosen_tokens(chosen_tokens: Part) -> Iterator[str]:
    """By hand: an answer that ended, one cut off, one that is all end, a prompt of one, ids of 0."""
    for prompt, said, limit, end, what in (
        ([7, 8], [3, 4], 5, 9, "an answer of two tokens and its end"),
        ([7, 8], [3, 4], 2, 9, "the same, cut off after two: no end"),
        ([7, 8, 9], [], 4, 9, "an answer that is nothing but its end"),
        (
            [5],
            [6, 0, 6],
            4,
            0,
            "a prompt of one token, and the id 0, which is a token like any other",
        ),
        ([1, 1, 1, 1], [1], 1, 2, "one token allowed, and it wasn't the end"),
    ):
        _require_chosen(chosen_tokens, prompt, said, limit, end)
        yield what


def _require_chosen(part: Part, prompt: list[int], said: list[int], limit: int, end: int) -> None:
    given = list(prompt), list(said), limit, end
    got = call(part, *given, name="chosen_tokens")
    if given[:2] != (prompt, said):
        raise Mistake(
            "chosen_tokens changed a list that it was given.",
            "`+=`, `append` and `extend` work in place; `first + second` makes a new list.",
        )
    found = _two_lists(got)
    reason = usual_reason(MUTANTS["chosen_tokens"], found, prompt, said, limit, end)
    chosen = said + [end] * (len(said) < limit)
    want = prompt + chosen, [IGNORED] * (len(prompt) - 1) + [*chosen, IGNORED]
    for name, mine, right in zip(("ids", "targets"), found, want, strict=True):
        if mine != right:
            raise Mistake(
                f"Prompt {prompt}, answer {said}, limit {limit}, end {end}: the {name} are {right}, "
                f"and yours are {mine}.",
                reason,
            )


def _two_lists(got: Any) -> Chosen:
    """The answer as two lists of whole numbers; those of a tensor or of NumPy count as such."""
    try:
        ids, targets = ([operator.index(number) for number in side] for side in got)
    except (TypeError, ValueError):
        raise Mistake(
            f"chosen_tokens returned {outlined(got)}; a pair of lists of whole numbers was wanted."
        ) from None
    return ids, targets


def check_mended_step(mended_step: Part) -> Iterator[str]:
    """The tables after a first step and a later one, and the score that many steps lead to."""
    uniform_VV, reference_VV = torch.zeros(4, 4), 0.5 * random_normal(4, 4, seed=1)
    answers = _rows([1, 2], [2], [1, 1, 2, 1, 2], [])
    score_B = torch.tensor([1.0, -0.5, 0.25, 0.0])
    _require_tables(mended_step, uniform_VV, torch.zeros(4), uniform_VV, *answers, score_B)
    yield "the first step: both tables move as they should"
    later_VV, value_V = random_normal(4, 4), 0.2 * random_normal(4, seed=2)
    _require_tables(mended_step, later_VV, value_V, reference_VV, *answers, score_B)
    yield "a later one, when the policy isn't the reference any more"
    before, after = _many_steps(mended_step)
    if not after > 0.5:
        raise Mistake(
            f"Answers should have the words 1 and 2 in them, and end. In 30 steps the score expected "
            f"of the policy went from {before:.2f} to {after:.2f}, and it should be above 0.5.",
            "Each step by itself was right. Is something kept from one call to the next?",
        )
    yield "30 steps make a good policy of one that says anything"


def _require_tables(part: Part, *inputs: Tensor) -> None:
    # First: with its first optimizer PyTorch imports for seconds, which is no endless loop of a part.
    want = stepped(inputs)
    got = call(part, *inputs, name="mended_step")
    reason = _known_step(got, inputs)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake(
            f"mended_step returned {describe(got)}; the two tables were wanted, policy and value."
        )
    for mine, table, right in zip(got, inputs, want, strict=False):
        require_tensor(mine, table.shape, torch.float32, "mended_step")
        if not same(mine, right, 1e-4):
            moved, wanted = ((x.detach() - table).view(-1, 4) for x in (mine, right))
            row = int((moved - wanted).abs().amax(1).argmax())
            where = f"Row {row} of the policy" if table.ndim == 2 else "The value model"
            raise Mistake(
                f"{where} should have moved by {numbers(wanted[row])}, and yours has by "
                f"{numbers(moved[row])}.",
                reason or _FIRST,
            )


def _known_step(got: Any, inputs: Sequence[Tensor]) -> str:
    for mutant in MUTANTS["mended_step"]:
        if same(tuple(got) if isinstance(got, list) else got, mutant(*inputs), 1e-4):
            return told_by(mutant)
    return ""


def _many_steps(part: Part) -> tuple[float, float]:
    """The expected scores before and after, where an answer should say the words 1 and 2."""
    chance, reference_VV = torch.Generator().manual_seed(0), torch.zeros(4, 4)
    policy_VV, value_V, scores = reference_VV, torch.zeros(4), []
    for _ in range(30):
        answers = drawn_answers(policy_VV, 3, 16, _LIMIT, chance)
        scores += [scored(said, _LIMIT, _both_words) for said in answers]
        score_B = torch.tensor(scores[-16:]) - sum(scores) / len(scores)
        inputs = policy_VV, value_V, reference_VV, *_rows(*answers), score_B
        policy_VV, value_V = call(part, *inputs, name="mended_step")
    before, after = (expected_score(x, 3, _LIMIT, _both_words) for x in (reference_VV, policy_VV))
    return before, after


def _rows(*answers: list[int]) -> tuple[Tensor, Tensor]:
    return in_rows([right_tokens([3], said, _LIMIT, END) for said in answers])


def _both_words(said: Sequence[int]) -> float:
    return len({1, 2} & set(said)) / 2
