"""Wrong ways to write with drafts, from the exercise 85_speculation: with a cache, and with a seed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.mutants.speculate import right_ones

Guess = Callable[[list[int]], int]
Score = Callable[[list[int]], Tensor]
Choose = Callable[[Tensor], int]


def rejected_stay(
    model: Any, guess: Guess, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    """The keys of rejected guesses stay in the cache, and the model goes on as if it had written them:
    wind the cache back to all of the text but its last token. (In mlx-lm #1109 it was a cache that
    can't be wound back, and nobody was told.)"""
    ids, cache = list(prompt_ids), model.new_cache(len(prompt_ids) + count * (length + 1))
    model(torch.tensor([ids[:-1]]), cache)
    while len(ids) < len(prompt_ids) + count:
        guesses: list[int] = []
        for _ in range(length):
            guesses.append(guess(ids + guesses))
        chosen = model(torch.tensor([[ids[-1], *guesses]]), cache)[0].argmax(-1).tolist()
        right = 0
        while right < length and guesses[right] == chosen[right]:
            right += 1
        ids += chosen[: right + 1]
    return ids[len(prompt_ids) :][:count]


def wound_back_too_little(
    model: Any, guess: Guess, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    """The cache is wound back to the length of the text, which is one too many: the last token was
    written, but not read yet. In its column lies the key of the guess that was wrong there."""
    return _wound_back(model, guess, prompt_ids, count, length, lambda ids, cache: len(ids))


def all_guesses_forgotten(
    model: Any, guess: Guess, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    """The whole draft is taken off the cache, right guesses with the wrong ones. What is written has to
    stay: its length is that of the text less one."""
    return _wound_back(
        model, guess, prompt_ids, count, length, lambda ids, cache: cache.length - length
    )


def back_to_the_prompt(
    model: Any, guess: Guess, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    """The cache is wound back to the prompt, and all that was written since is forgotten (aprender
    #2014 even forgot the prompt): its length is that of the text less one."""
    return _wound_back(
        model, guess, prompt_ids, count, length, lambda ids, cache: len(prompt_ids) - 1
    )


def _wound_back(
    model: Any,
    guess: Guess,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
    end: Callable[[list[int], Any], int],
) -> list[int]:
    """`rejected_stay`, but after each step the cache is as long as `end` says."""
    ids, cache = list(prompt_ids), model.new_cache(len(prompt_ids) + count * (length + 1))
    model(torch.tensor([ids[:-1]]), cache)
    while len(ids) < len(prompt_ids) + count:
        guesses = _draft(guess, ids, length)
        chosen = model(torch.tensor([[ids[-1], *guesses]]), cache)[0].argmax(-1).tolist()
        ids += chosen[: right_ones(guesses, chosen) + 1]
        cache.length = end(ids, cache)
    return ids[len(prompt_ids) :][:count]


def asked_too_often(
    score: Score,
    guess: Guess,
    choose: Choose,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
) -> list[int]:
    """`choose` is asked for every row, also for those behind a wrong guess. If it draws, each question
    uses up random numbers, and the same seed now gives another text: ask only for what is written."""
    ids, end = list(prompt_ids), len(prompt_ids) + count
    while len(ids) < end:
        guesses = _draft(guess, ids, min(length, end - len(ids) - 1))
        chosen = [choose(logits_V) for logits_V in score(ids + guesses)[len(ids) - 1 :]]
        ids += chosen[: right_ones(guesses, chosen) + 1]
    return ids[len(prompt_ids) :]


def runs_over(
    score: Score,
    guess: Guess,
    choose: Choose,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
) -> list[int]:
    """The last draft runs over the end. A step may write length + 1 tokens, and fewer may be wanted."""
    ids = list(prompt_ids)
    while len(ids) < len(prompt_ids) + count:
        _step(score, choose, ids, _draft(guess, ids, length), len(ids) - 1)
    return ids[len(prompt_ids) :]


def rows_one_late(
    score: Score,
    guess: Guess,
    choose: Choose,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
) -> list[int]:
    """The rows are taken from one place too late. Row n says what comes *behind* token n, so what
    the first guess should have been stands in the row of the last token written."""
    ids, end = list(prompt_ids), len(prompt_ids) + count
    while len(ids) < end:
        guesses = _draft(guess, ids, max(1, min(length, end - len(ids))))
        _step(score, choose, ids, guesses, len(ids))
    return ids[len(prompt_ids) :][:count]


def bonus_left_out(
    score: Score,
    guess: Guess,
    choose: Choose,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
) -> list[int]:
    """Behind a draft that is right from end to end the model's own token is left out. The text is
    right, and takes more steps than it has to: the scores of the last row are there too."""
    ids, end = list(prompt_ids), len(prompt_ids) + count
    while len(ids) < end:
        guesses = _draft(guess, ids, min(length, end - len(ids)))
        for guessed, logits_V in zip(guesses, score(ids + guesses)[len(ids) - 1 :], strict=False):
            ids.append(choose(logits_V))
            if ids[-1] != guessed:
                break
    return ids[len(prompt_ids) :]


def scored_one_by_one(
    score: Score,
    guess: Guess,
    choose: Choose,
    prompt_ids: Sequence[int],
    count: int,
    length: int,
) -> list[int]:
    """The model is run for each token. The text is right, and nothing is gained: the point is to score
    all guesses in one run."""
    ids = list(prompt_ids)
    for _ in range(count):
        guess(ids)
        ids.append(choose(score(ids)[-1]))
    return ids[len(prompt_ids) :]


def _draft(guess: Guess, ids: list[int], length: int) -> list[int]:
    guesses: list[int] = []
    for _ in range(length):
        guesses.append(guess(ids + guesses))
    return guesses


def _step(score: Score, choose: Choose, ids: list[int], guesses: list[int], first: int) -> None:
    """Writes behind ids what one run of the model allows."""
    for place, logits_V in enumerate(score(ids + guesses)[first:]):
        ids.append(choose(logits_V))
        if guesses[place : place + 1] != [ids[-1]]:
            break


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "mended_drafting": (
        rejected_stay,
        wound_back_too_little,
        all_guesses_forgotten,
        back_to_the_prompt,
    ),
    "drafted_text": (
        asked_too_often,
        runs_over,
        rows_one_late,
        bonus_left_out,
        scored_one_by_one,
    ),
}
"""The wrong versions of each task."""
