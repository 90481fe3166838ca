"""What the exercise 85_speculation writes with drafts: with a model and its cache, and with a seed."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.cases import PROBE, draw_weights
from qwen2lite.learn.contract import Mistake, call, describe, random_normal, told_by
from qwen2lite.learn.mutants.speculate_tasks import MUTANTS
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]

_PROMPT, _COUNT = [7, 49, 43], 12


def check_mended_drafting(mended_drafting: Part) -> Iterator[str]:
    """A small model; guesses all right, partly wrong and all wrong; as few runs as can be."""
    model = Qwen2(PROBE)
    draw_weights(model)
    model.eval().requires_grad_(False)
    ids = list(_PROMPT)
    for _ in range(_COUNT):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    text = ids[len(_PROMPT) :]
    for every, what in ((99, "guesses all right"), (3, "some wrong"), (1, "all wrong")):
        guess = _guessing(ids, every)
        got, runs, read = _written(mended_drafting, model, guess)
        if got != text:
            mutants = MUTANTS["mended_drafting"]
            known = (m for m in mutants if _written(m, model, guess)[0] == got)
            raise Mistake(_first_difference(got, text, what), next(map(told_by, known), ""))
        fewest, least = _written(_without_fault, model, guess)[1:]
        if runs > fewest:
            raise Mistake(
                f"With {what} the model runs {fewest} times for {_COUNT} tokens, and in yours "
                f"{runs} times.",
                "Each run is to check a whole draft.",
            )
        if read > least:
            raise Mistake(
                f"With {what} the model reads {least} tokens in all, and in yours {read}.",
                "What is in the cache needn't be read again: it is as long as the text less one.",
            )
        yield f"{what}: the model's own {_COUNT} tokens, in {runs} runs"


def _guessing(ids: list[int], every: int) -> Callable[[list[int]], int]:
    """Guesses that are wrong wherever the length of the text is divided by `every`."""

    def guess(so_far: list[int]) -> int:
        place = min(len(so_far), len(ids) - 1)
        return (ids[place] + (len(so_far) % every == 0)) % PROBE.vocab_size

    return guess


def _written(part: Part, model: Qwen2, guess: Part) -> tuple[Any, int, int]:
    """What it writes, how often the model runs, and how many tokens it reads."""
    lengths: list[int] = []
    counter = model.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    try:
        got = call(part, model, guess, list(_PROMPT), _COUNT, 4, name="mended_drafting")
    finally:
        counter.remove()
    return got, len(lengths), sum(lengths)


def _without_fault(
    model: Qwen2, guess: Part, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    ids, cache = list(prompt_ids), model.new_cache(len(prompt_ids) + count + length + 1)
    model(torch.tensor([ids[:-1]]), cache)
    while len(ids) < len(prompt_ids) + count:
        cache.length = len(ids) - 1
        draft = list(ids)
        for _ in range(length):
            draft.append(guess(draft))
        chosen = model(torch.tensor([draft[len(ids) - 1 :]]), cache)[0].argmax(-1).tolist()
        for guessed, token in zip([*draft[len(ids) :], None], chosen, strict=True):
            ids.append(token)
            if token != guessed:
                break
    return ids[len(prompt_ids) :][:count]


def _first_difference(got: Any, want: list[int], what: str) -> str:
    if not isinstance(got, list):
        return f"With {what}: {describe(got)} came back; a list of ids was wanted."
    if len(got) != len(want):
        return f"With {what}: {len(want)} tokens were wanted, and {len(got)} came."
    place = next(n for n, token in enumerate(want) if got[n] != token)
    return (
        f"With {what}: the model itself writes {want[: place + 3]} …, and yours "
        f"{got[: place + 3]} …; they part at token {place + 1}."
    )


_VOCABULARY = 9


@dataclass
class _Outcome:
    """What was written, and how often the model and `choose` were asked."""

    text: Any
    runs: int
    asked: int


@dataclass(frozen=True)
class _Text:
    """One way to be asked for a text."""

    what: str
    every: int
    """Guesses are wrong wherever the length of the text is divided by this."""
    drawn: bool = False
    count: int = 20
    length: int = 3


_TEXTS = (
    _Text("guesses all right", 99, count=10),
    _Text("some guesses wrong", 3),
    _Text("all guesses wrong", 1, count=6),
    _Text("one guess at a time", 4, length=1),
    _Text("drawn tokens", 3, drawn=True),
)


def check_drafted_text(drafted_text: Part) -> Iterator[str]:
    """A model of tables, greedy and drawn: the same tokens as one by one, and fewer runs."""
    for case in _TEXTS:
        want = _play(_one_by_one, case)
        got, fewest = _play(drafted_text, case), _play(_by_drafts, case).runs
        mutants = MUTANTS["drafted_text"]
        known = (told_by(mutant) for mutant in mutants if _play(mutant, case) == got)
        if got.text != want.text:
            raise Mistake(_first_difference(got.text, want.text, case.what), next(known, ""))
        if got.asked > case.count:
            raise Mistake(
                f"With {case.what}: {case.count} tokens were written, and `choose` was asked "
                f"{got.asked} times.",
                next(known, ""),
            )
        if got.runs > fewest:
            raise Mistake(
                f"With {case.what}: the text is right. {fewest} runs of the model are enough for it, "
                f"and yours took {got.runs}.",
                next(known, ""),
            )
        yield f"{case.what}: the same {case.count} tokens, in {got.runs} runs"


def _play(part: Part, case: _Text) -> _Outcome:
    """The part's answer with a model that knows, for each pair of tokens, scores of the next."""
    table = random_normal(_VOCABULARY, _VOCABULARY, _VOCABULARY, seed=3)
    rng, outcome = random.Random(5), _Outcome(None, 0, 0)

    def score(ids: Sequence[int]) -> Tensor:
        outcome.runs += 1
        return torch.stack([table[ids[max(n - 1, 0)], ids[n]] for n in range(len(ids))])

    def guess(ids: Sequence[int]) -> int:
        likeliest = int(table[ids[max(len(ids) - 2, 0)], ids[-1]].argmax())
        return (likeliest + (len(ids) % case.every == 0)) % _VOCABULARY

    def choose(logits_V: Tensor) -> int:
        outcome.asked += 1
        if not case.drawn:
            return int(logits_V.argmax())
        return rng.choices(range(_VOCABULARY), weights=(1.5 * logits_V).exp().tolist())[0]

    given = score, guess, choose, [4, 1], case.count, case.length
    outcome.text = call(part, *given, name="drafted_text")
    return outcome


def _one_by_one(
    score: Part, guess: Part, choose: Part, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    ids = list(prompt_ids)
    for _ in range(count):
        ids.append(choose(score(ids)[-1]))
    return ids[len(prompt_ids) :]


def _by_drafts(
    score: Part, guess: Part, choose: Part, prompt_ids: Sequence[int], count: int, length: int
) -> list[int]:
    ids, end = list(prompt_ids), len(prompt_ids) + count
    while len(ids) < end:
        draft = list(ids)
        while len(draft) < min(len(ids) + length, end - 1):
            draft.append(guess(draft))
        for place, logits_V in enumerate(score(draft)[len(ids) - 1 :], len(ids)):
            ids.append(choose(logits_V))
            if draft[place : place + 1] != [ids[place]]:
                break
    return ids[len(prompt_ids) :]
