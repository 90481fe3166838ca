"""Wrong answers to the exercise 75_evaluation: ln p of an option, and which one is taken.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Ids = Sequence[int]


def _sum(logits_TV: Tensor, first: int, ids: Ids) -> float:
    """ln p of some ids, the first asked of the row `first`; rows that are missing add nothing."""
    logp_TV = logits_TV.float().log_softmax(-1)
    places = zip(range(first, len(logp_TV)), ids, strict=False)
    return math.fsum(float(logp_TV[row, token]) for row, token in places)


def one_late(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """Each token is asked of the row at which the model has read it already. A row says what comes
    *next*: the option's first token is asked of the prompt's last row."""
    return _sum(logits_TV, len(prompt), option)


def one_early(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """Each token is asked one row too early, where the model hasn't read the end of the prompt. Row t
    says what comes next after t + 1 tokens, so the prompt's last row is len(prompt) − 1."""
    return _sum(logits_TV, len(prompt) - 2, option)


def first_left_out(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The option's first token is left out, and it often decides. It is predicted by the prompt's last
    row; rows that belong to the option begin one too late."""
    return _sum(logits_TV, len(prompt), option[1:])


def last_left_out(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The option's last token is left out. It is never read, and yet predicted: by the row before
    it."""
    return _sum(logits_TV, len(prompt) - 1, option[:-1])


def prompt_end_counted(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The prompt's last token is counted, too. How likely the question is, given its beginning, is
    not asked."""
    return _sum(logits_TV, len(prompt) - 2, [prompt[-1], *option])


def whole_text(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """This is ln p of the whole text, less its first token. How likely the question is was not asked:
    begin with the option's first token."""
    return _sum(logits_TV, 0, [*prompt[1:], *option])


def mean_of_tokens(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """This is the mean over the option's tokens. The probability of a text is a product, so its
    logarithm is a sum; whether it is divided by a length is decided later."""
    return _sum(logits_TV, len(prompt) - 1, option) / len(option)


def mean_of_prompt_tokens(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The sum is divided by the number of the prompt's tokens. Nothing is to be divided here, and by
    this length never."""
    return _sum(logits_TV, len(prompt) - 1, option) / len(prompt)


def logits_added(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """Logits are added up. They are no logarithms of probabilities until a log_softmax has been taken
    over the vocabulary."""
    return sum(float(logits_TV[len(prompt) - 1 + i, token]) for i, token in enumerate(option))


def over_positions(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The softmax goes down the rows: it compares one token at several places. It has to go along a
    row, dimension −1, where all tokens of the vocabulary compete for one place."""
    logp_TV = logits_TV.float().log_softmax(0)
    return sum(float(logp_TV[len(prompt) - 1 + i, token]) for i, token in enumerate(option))


def a_loss(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The sign is that of a loss, −ln p. Of several options the one with the *most* is taken, so what
    is wanted is ln p, never above 0."""
    return -_sum(logits_TV, len(prompt) - 1, option)


def from_the_end(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The rows are counted from the end, and at the end there may be padding: a shorter option in a
    batch is asked of rows that belong to nothing. Count from the prompt's length."""
    return _sum(logits_TV, len(logits_TV) - len(option) - 1, option)


def multiplied(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """Probabilities are multiplied, and the logarithm is taken at the end. Of a long option the product
    is 0 in float32, and its logarithm −inf. Take each token's logarithm first, and add."""
    p_TV = logits_TV.float().softmax(-1)
    picked = [p_TV[len(prompt) - 1 + i, token] for i, token in enumerate(option)]
    return float(torch.stack(picked).prod().log())


def in_bfloat16(logits_TV: Tensor, prompt: Ids, option: Ids) -> float:
    """The log_softmax is taken in bfloat16, which has three digits, and each token's error adds up.
    Make the logits float32 before: `.float()`."""
    logp_TV = logits_TV.log_softmax(-1)
    return math.fsum(float(logp_TV[len(prompt) - 1 + i, token]) for i, token in enumerate(option))


def _most(values: Iterable[float]) -> int:
    found = list(values)
    return found.index(max(found))


def _lengths(by: str, choices: Sequence[str], tokens: Ids) -> list[int]:
    in_bytes = [len(f" {choice}".encode()) for choice in choices]
    return {"token": list(tokens), "byte": in_bytes}.get(by, [1] * len(choices))


def values(
    by: str, choices: Sequence[str], tokens: Ids, logps: Sequence[float], alone: Sequence[float]
) -> list[float]:
    """What the options have to be compared by."""
    if by == "unconditional":
        return [given - without for given, without in zip(logps, alone, strict=True)]
    return [x / n for x, n in zip(logps, _lengths(by, choices, tokens), strict=True)]


def least_likely(*inputs: Any) -> int:
    """This is the option with the least. ln p is below 0, and the one nearest to 0 is the likeliest:
    take the largest."""
    found = values(*inputs)
    return found.index(min(found))


def last_of_equals(*inputs: Any) -> int:
    """Of equal options the last is taken. Somewhere it has to be decided, and here it is the first:
    `index` finds it, and so does `max` over the numbers."""
    found = values(*inputs)
    return len(found) - 1 - found[::-1].index(max(found))


def numbers_from_1(*inputs: Any) -> int:
    """The number of the option counts from 1. Answers count from 0."""
    return _most(values(*inputs)) + 1


def way_ignored(by: str, *inputs: Any) -> int:
    """The sums are compared, whatever is asked for: a long option loses for its length."""
    return _most(values("sum", *inputs))


def words_for_tokens(by: str, choices: Sequence[str], tokens: Ids, *numbers: Any) -> int:
    """The sum is divided by the number of words. A word may be several tokens, and it is over tokens
    that the sum goes: `tokens` has their number."""
    counts = [len(choice.split()) for choice in choices]
    return _most(values(by, choices, counts, *numbers))


def times_length(by: str, choices: Sequence[str], tokens: Ids, logps: Any, alone: Any) -> int:
    """The sum is multiplied by the length: long options lose twice. A mean divides."""
    if by == "unconditional":
        return _most(values(by, choices, tokens, logps, alone))
    return _most(x * n for x, n in zip(logps, _lengths(by, choices, tokens), strict=True))


def probability_divided(
    by: str, choices: Sequence[str], tokens: Ids, logps: Any, alone: Any
) -> int:
    """The probability is divided by the length, and not its logarithm. Then length nearly doesn't
    count against what is a product over it. Divide ln p."""
    if by == "unconditional":
        return _most(values(by, choices, tokens, logps, alone))
    lengths = _lengths(by, choices, tokens)
    return _most(math.exp(x) / n for x, n in zip(logps, lengths, strict=True))


def characters_for_bytes(by: str, choices: Sequence[str], *rest: Any) -> int:
    """These are characters. In UTF-8 a letter such as ö or я takes two bytes, and most Chinese
    characters three: `.encode()` makes bytes of a text."""
    return _by_lengths(by, choices, [len(f" {choice}") for choice in choices], *rest)


def bytes_without_space(by: str, choices: Sequence[str], *rest: Any) -> int:
    """The length is that of another string than the one that was scored: the option is read with the
    space before it, and the space is a byte, too."""
    return _by_lengths(by, choices, [len(choice.encode()) for choice in choices], *rest)


def _by_lengths(by: str, choices: Any, lengths: Ids, tokens: Ids, *numbers: Any) -> int:
    """What is taken, "byte" dividing by these lengths."""
    given = ("token", choices, lengths) if by == "byte" else (by, choices, tokens)
    return _most(values(*given, *numbers))


def alone_ignored(by: str, *inputs: Any) -> int:
    """What an option is worth without the question isn't taken off: one that is likely anywhere wins.
    Subtract its `alone`."""
    return _most(values("sum" if by == "unconditional" else by, *inputs))


def alone_added(by: str, choices: Any, tokens: Ids, logps: Any, alone: Sequence[float]) -> int:
    """`alone` is added. How much likelier the question makes an option is a quotient of probabilities,
    and of logarithms the difference."""
    return _most(values(by, choices, tokens, logps, [-x for x in alone]))


def logs_divided(by: str, choices: Any, tokens: Ids, logps: Any, alone: Sequence[float]) -> int:
    """The logarithms are divided. Of the probabilities one takes the quotient; their logarithms are
    subtracted."""
    if by == "unconditional":
        return _most(x / y for x, y in zip(logps, alone, strict=True))
    return _most(values(by, choices, tokens, logps, alone))


def difference_turned(
    by: str, choices: Any, tokens: Ids, logps: Any, alone: Sequence[float]
) -> int:
    """The difference is turned round: it takes the option that the question makes *less* likely.
    ln p with the question, less ln p without it."""
    if by == "unconditional":
        logps, alone = alone, logps
    return _most(values(by, choices, tokens, logps, alone))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "option_logp": (
        one_late, one_early, first_left_out, last_left_out, prompt_end_counted, whole_text,
        mean_of_tokens, mean_of_prompt_tokens, logits_added, over_positions, a_loss, from_the_end,
        multiplied, in_bfloat16,
    ),
    "picked_option": (
        alone_ignored, difference_turned, least_likely, last_of_equals, numbers_from_1, way_ignored,
        words_for_tokens, times_length, probability_divided, characters_for_bytes,
        bytes_without_space, alone_added, logs_divided,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
