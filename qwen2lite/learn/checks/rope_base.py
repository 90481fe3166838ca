"""What the exercise 51_rope_base asks: who never came round, which base is enough, where it breaks."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from qwen2lite.learn.contract import Mistake, call, describe, require_number, told_by
from qwen2lite.learn.mutants.rope_base import MUTANTS

Part = Callable[..., Any]


def check_never_turned(never_turned: Part) -> Iterator[str]:
    """By hand with four pairs, then Qwen2's own two lengths."""
    for inputs, want, what in (
        ((8, 10_000.0, 500), [2, 3], "by hand: 500, 50, 5 and 0.5 radians, a circle has 6.28"),
        ((8, 10_000.0, 50), [1, 2, 3], "in 50 tokens only the first pair comes round"),
        ((64, 10_000.0, 4096), list(range(23, 32)), "base 10,000, 4,096 tokens: pairs 23 to 31"),
        ((64, 1e6, 32_768), list(range(20, 32)), "base 1,000,000, 32,768 tokens: 20 to 31"),
    ):
        got = call(never_turned, *inputs)
        if not isinstance(got, list | tuple | range) or any(type(i) is not int for i in got):
            raise Mistake(f"never_turned returned {describe(got)}; a list of numbers was wanted.")
        if list(got) != want:
            raise Mistake(
                f"never_turned{inputs} is {list(got)}; {want} was wanted.",
                _reason("never_turned", list(got), inputs),
            )
        yield what


def check_smallest_base(smallest_base: Part) -> Iterator[str]:
    """By hand, then the report's lengths, a shorter head, and no stretch at all."""
    for inputs, want, what in (
        ((16, 10_000.0, 500, 2000), 160_000.0, "by hand: pair 4 of 8, four times the length"),
        ((64, 10_000.0, 4096, 32_768), 1e4 * 8 ** (32 / 23), "Qwen2's lengths: about 180,500"),
        ((32, 10_000.0, 256, 1024), 1e4 * 4 ** (16 / 7), "qwen2-tiny, four times: about 237,800"),
        ((64, 10_000.0, 4096, 4096), 10_000.0, "the same length asks for the same base"),
    ):
        got = call(smallest_base, *inputs)
        require_number(got, "smallest_base")
        if not math.isclose(got, want, rel_tol=2e-3):
            raise Mistake(
                f"smallest_base{inputs} is {got:,.0f}; {want:,.0f} was wanted.",
                _reason("smallest_base", got, inputs),
            )
        yield what


def check_perplexity_by_position(perplexity_by_position: Part) -> Iterator[str]:
    """By hand, then a last group with fewer positions."""
    losses = torch.tensor([[1.0, 4.0, 4.0, 4.0, 9.0], [1.0, 4.0, 16.0, 16.0, 9.0]]).log()
    for inputs, want, what in (
        ((losses[:, :4], 2), [2.0, 8.0], "by hand: 1, 4, 1, 4 make 2, and 4, 4, 16, 16 make 8"),
        ((losses, 2), [2.0, 8.0, 9.0], "a last group of one position counts too"),
        ((losses, 1), [1.0, 4.0, 8.0, 8.0, 9.0], "position by position"),
    ):
        got = call(perplexity_by_position, *inputs)
        values = got.tolist() if isinstance(got, torch.Tensor) else got
        if not isinstance(values, list | tuple):
            raise Mistake(f"perplexity_by_position returned {describe(got)}; a list was wanted.")
        if not _near(values, want):
            shown = ", ".join(f"{float(value):.3g}" for value in values)
            raise Mistake(
                f"For positions {inputs[1]} at a time the perplexities are {want}, yours are "
                f"[{shown}].",
                _reason("perplexity_by_position", [float(value) for value in values], inputs),
            )
        yield what


def check_mended_base(mended_base: Part) -> Iterator[str]:
    """Both spellings, and a file without any."""
    for config, want, what in (
        ({"rope_theta": 1e6, "rope_scaling": None}, 1e6, "where older files have it"),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5, "where newer do"),
        ({"hidden_size": 896}, 10_000.0, "10,000 where a file has none"),
        ({"rope_theta": 2e6, "rope_parameters": None}, 2e6, "an empty new place changes nothing"),
    ):
        got = call(mended_base, dict(config))
        require_number(got, "mended_base")
        if got != want:
            raise Mistake(
                f"For {config} the base is {want:,.0f}, and yours is {got:,.0f}.",
                _reason("mended_base", got, (config,)),
            )
        yield what


def _reason(name: str, got: Any, inputs: tuple[Any, ...]) -> str:
    """What the known mistake with this answer says of itself."""
    for mutant in MUTANTS[name]:
        wrong = mutant(*inputs)
        both = [x if isinstance(x, list) else [x] for x in (got, wrong)]
        if _near(*both):
            return told_by(mutant)
    return ""


def _near(got: Sequence[float], want: Sequence[float]) -> bool:
    return len(got) == len(want) and all(
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in zip(got, want, strict=True)
    )
