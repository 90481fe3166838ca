"""What `penalise_repetition`, `keep_top_p` and `sample` have to do.

Expected values are by hand. Draws are counted over 4,000 rows, where a share is off by less than 0.04.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from qwen2lite.infer.sample import Sampling
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.sampling import MUTANTS, ignores_the_generator

Part = Callable[..., Any]

_ROWS = 4000
_TOLERANCE = 0.04  # five standard deviations of a share counted over 4,000 rows
_SHARES = (1.0, 8.0, 2.0, 1.0, 4.0)


def check_penalise_repetition(penalise_repetition: Part) -> Iterator[str]:
    """Both signs by hand, a token that occurred twice, two texts, a penalty of 1."""

    def require(rows: list[list[float]], ids: list[list[int]], by: float, want: Any) -> None:
        inputs = (torch.tensor(rows), torch.tensor(ids), by)
        got = call(penalise_repetition, *inputs)
        why = usual_reason(MUTANTS["penalise_repetition"], got, *inputs)
        wanted = torch.tensor(want)
        require_tensor(got, wanted.shape, torch.float32, "penalise_repetition", why)
        if not same(got, wanted):
            raise Mistake(
                f"Scores {numbers(inputs[0])}, penalty {by:g}, seen {ids}: wanted "
                f"{numbers(wanted)}, got {numbers(got)}.",
                why,
            )

    require([[2.0, -2.0, 1.0]], [[0, 0, 1]], 2.0, [[1.0, -4.0, 1.0]])
    yield "2 becomes 1 and −2 becomes −4, once however often they occurred"
    require([[3.0, 3.0], [3.0, -3.0]], [[0, 0], [1, 1]], 1.5, [[2.0, 3.0], [3.0, -4.5]])
    yield "each text pays for its own tokens"
    require([[2.0, -2.0, 1.0]], [[0, 1, 2]], 1.0, [[2.0, -2.0, 1.0]])
    yield "a penalty of 1 changes nothing"


def check_keep_top_p(keep_top_p: Part) -> Iterator[str]:
    """Shares of 4, 3, 2 and 1 tenths by hand, p reached exactly, a sure model, p = 1, two rows."""

    def require(shares: list[list[float]], p: float, kept: list[int], what: str) -> None:
        scores = torch.tensor(shares).log()
        got = call(keep_top_p, scores, p)
        why = usual_reason(MUTANTS["keep_top_p"], got, scores, p)
        require_tensor(got, scores.shape, torch.float32, "keep_top_p", why)
        places = torch.arange(scores.shape[1])
        want = scores.masked_fill(places >= torch.tensor(kept)[:, None], float("-inf"))
        if not same(got, want):
            raise Mistake(f"{what}: wanted {numbers(want)}, got {numbers(got)}.", why)

    require([[0.4, 0.3, 0.2, 0.1]], 0.8, [3], "Shares 0.4, 0.3, 0.2, 0.1 and p = 0.8 keep three")
    yield "0.4 + 0.3 doesn't reach 0.8, so the third stays; its score is as it was"
    # Of equal scores the shares are exact, and two of them make exactly a half.
    require([[1.0, 1.0, 1.0, 1.0]], 0.5, [2], "Four equal shares and p = 0.5 keep two")
    yield "where p is reached exactly, no more is kept"
    require([[0.9, 0.05, 0.05]], 0.5, [1], "A share of 0.9 and p = 0.5 keep one")
    yield "the likeliest is never dropped"
    require([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]], 0.6, [1, 2], "Two rows and p = 0.6 keep 1 and 2")
    require([[0.4, 0.3, 0.2, 0.1]], 1.0, [4], "p = 1 keeps all")
    yield "each row by itself, and p = 1 keeps everything"


def check_sample(sample: Part) -> Iterator[str]:
    """Greedy; shares as they are; temperature; top-k; the order; the penalty; seeds; a large k."""
    _require_greedy(sample, [[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]], [[0], [2]], [1, 0], Sampling())
    yield "temperature 0 takes the likeliest, the first of equals"

    _require_shares(sample, Sampling(temperature=1.0), [1, 8, 2, 1, 4])
    yield "temperature 1 draws the shares as they are: ids, not ranks"
    _require_shares(sample, Sampling(temperature=0.5), [1, 64, 4, 1, 16])
    yield "temperature ½ squares them"
    _require_shares(sample, Sampling(temperature=1.0, top_k=2), [0, 8, 0, 0, 4])
    yield "top-k 2 leaves two"
    _require_shares(sample, Sampling(temperature=1.0, top_p=0.8), [0, 8, 2, 0, 4])
    _require_shares(sample, Sampling(temperature=0.5, top_p=0.8), [0, 64, 0, 0, 16])
    yield "top-p after the temperature"
    _require_shares(sample, Sampling(temperature=1.0, top_k=2, top_p=0.6), [0, 1, 0, 0, 0])
    yield "top-p after top-k"

    punished = Sampling(repetition_penalty=2.0)
    seen = [[0, 2], [2, 0], [2, 2]]
    _require_greedy(sample, [[2.0, 1.5, -1.0]] * 3, seen, [1, 1, 0], punished)
    yield "the penalty comes first, and for greedy too"
    # Token 1 has occurred, and a third of log 8 is log 2.
    punished = Sampling(temperature=1.0, repetition_penalty=3.0)
    _require_shares(sample, punished, [1, 2, 2, 1, 4])
    _require_shares(sample, replace(punished, top_k=1), [0, 0, 0, 0, 1])
    yield "and where tokens are drawn, before anything is left out"

    yield from _check_seeds(sample)
    _require_shares(sample, Sampling(temperature=1.0, top_k=50), [1, 8, 2, 1, 4])
    yield "a top-k beyond the vocabulary keeps all"


def _require_greedy(
    sample: Part,
    scores: list[list[float]],
    seen: list[list[int]],
    want: list[int],
    settings: Sampling,
) -> None:
    inputs = (torch.tensor(scores), torch.tensor(seen), settings)

    def asked(part: Part) -> Any:
        return _or_error(lambda: call(part, *inputs, name="sample"))

    got = asked(sample)
    if isinstance(got, torch.Tensor) and got.tolist() == want:
        return
    known = (m for m in MUTANTS["sample"] if _alike(asked(m), got))
    why = next(map(told_by, known), "")
    if isinstance(got, Mistake):
        raise Mistake(got.wrong, why or got.reason)
    in_a_row = isinstance(got, torch.Tensor) and list(got.shape) == [len(want)]
    said = numbers(got) if in_a_row else describe(got)
    raise Mistake(
        f"Scores {scores}, seen {seen}, temperature 0, penalty {settings.repetition_penalty:g}: "
        f"wanted the ids {want}, got {said}.",
        why,
    )


def _require_shares(sample: Part, settings: Sampling, parts: Sequence[int]) -> None:
    """Raises Mistake unless the ids are drawn in these shares."""

    def asked(part: Part) -> Any:
        return _or_error(lambda: _frequencies(part, settings))

    got = asked(sample)
    want = torch.tensor(parts).float()
    want /= want.sum()
    if isinstance(got, torch.Tensor) and _close(got, want):
        return
    known = (m for m in MUTANTS["sample"] if _alike(asked(m), got))
    why = next(map(told_by, known), "")
    if isinstance(got, Mistake):
        raise Mistake(got.wrong, why or got.reason)
    asked_for = (
        f"temperature {settings.temperature:g}, top-k {settings.top_k}, top-p {settings.top_p:g}"
    )
    if settings.repetition_penalty != 1:
        asked_for += f", and a penalty of {settings.repetition_penalty:g} for token 1"
    raise Mistake(
        f"Shares 1 : 8 : 2 : 1 : 4 with {asked_for} should be drawn as {numbers(want)}, "
        f"and come as {numbers(got)}.",
        why,
    )


def _frequencies(part: Part, settings: Sampling) -> torch.Tensor:
    scores = torch.tensor(_SHARES).log().expand(_ROWS, -1)
    # Of token 1: the score of token 0 is log 1, which no penalty moves.
    history = torch.ones(_ROWS, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    ids = call(part, scores, history, settings, generator, name="sample")
    require_tensor(
        ids, [_ROWS], torch.long, "sample", "One id for each row, without a dimension more."
    )
    return torch.bincount(ids, minlength=len(_SHARES)) / _ROWS


def _close(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Whether counted shares may come of these: near to them, and nothing that is excluded."""
    return bool((got - want).abs().max() < _TOLERANCE) and not bool(got[want == 0].any())


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool((one - other).abs().max() < _TOLERANCE)
    return isinstance(one, Mistake) and isinstance(other, Mistake) and one.wrong == other.wrong


def _or_error(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Mistake as mistake:
        return mistake


def _check_seeds(sample: Part) -> Iterator[str]:
    history, settings = torch.zeros(200, 1, dtype=torch.long), Sampling(temperature=1.0)

    def drawn(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return call(sample, torch.zeros(200, 50), history, settings, generator, name="sample")

    if not torch.equal(drawn(3), drawn(3)) or torch.equal(drawn(3), drawn(4)):
        raise Mistake(
            "The same seed should draw the same ids, and another one others.",
            told_by(ignores_the_generator),
        )
    before = torch.random.get_rng_state()
    call(sample, torch.zeros(200, 50), history, settings, name="sample")
    torch.random.set_rng_state(before)
    yield "the generator decides, and without one it draws all the same"
