"""What the parts of `model/yarn.py` have to do. Expected values are by hand or in Python's float64.

With heads of 16, a base of 1000 and 1000 tokens of training the ramp climbs from pair 1 to pair 6,
so its values are fifths: a case that one can follow on paper.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    meta_device,
    numbers,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.yarn import MUTANTS, on_the_default_device

Part = Callable[..., Any]

_RAMP = [0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
_SCALING = {"factor": 2.0, "original_max_position_embeddings": 1000}
# Head size, base, trained length, beta_fast, beta_slow, truncate.
_SETTINGS = (
    (64, 1e6, 32768, 32.0, 1.0, True),
    (20, 500.0, 300, 8.0, 0.5, True),
    (20, 500.0, 300, 8.0, 0.5, False),
    (12, 1e4, 50, 32.0, 1.0, True),
)
# The end behind the last pair, behind H - 1, and where the begin is.
_ENDS = (
    (16, 50.0, 1000, 32.0, 1.0, True),
    (16, 10.0, 1000, 32.0, 1.0, True),
    (16, 1000.0, 1000, 1.0, 1.0, False),
)


def check_yarn_ramp(yarn_ramp: Part) -> Iterator[str]:
    """Fifths by hand, both ends kept in and apart, other sizes and settings."""
    got = call(yarn_ramp, 16, 1000.0, 1000)
    require_tensor(got, [8], torch.float32, "yarn_ramp(16, 1000.0, 1000)", "One value a pair: H/2.")
    yield "one float32 value for each pair of a head"

    if not same(got, torch.tensor(_RAMP)):
        raise Mistake(
            f"yarn_ramp(16, 1000.0, 1000) is {numbers(got)}, and should be {_RAMP}.",
            usual_reason(MUTANTS["yarn_ramp"], got, 16, 1000.0, 1000),
        )
    yield "from pair 1 to pair 6 it climbs in fifths, and it stays between 0 and 1"

    for inputs in (*_SETTINGS, *_ENDS):
        got, want = call(yarn_ramp, *inputs), torch.tensor(_ramp(*inputs))
        require_tensor(got, want.shape, torch.float32, f"yarn_ramp{inputs}")
        if not same(got, want):
            raise Mistake(
                f"yarn_ramp{inputs} is {numbers(got)}, and should be {numbers(want)}.",
                usual_reason(MUTANTS["yarn_ramp"], got, *inputs)
                or "Keep the lower end at 0 or above and the upper one at H - 1 or below, round "
                "them only with truncate, and move the upper one where they fall together.",
            )
    yield "right for other heads, bases and lengths, with and without truncate"


def check_yarn(yarn: Part) -> Iterator[str]:
    """Frequencies by hand, the attention factor and one that is given, other settings, refusals."""
    frequencies_R = _frequencies(16, 1000.0)
    slowed_R, attention_factor = _stretched(yarn, frequencies_R, 1000.0, _SCALING)
    yield "frequencies, one a pair, and one number"

    ratios = slowed_R / frequencies_R
    want = 1 - 0.5 * torch.tensor(_RAMP)
    if not same(ratios, want):
        raise Mistake(
            "Stretched twice, the frequencies are multiplied by "
            f"{numbers(ratios)}, and should be by {numbers(want)}.",
            _why((slowed_R, attention_factor), frequencies_R, 1000.0, _SCALING),
        )
    yield "the fast pairs keep their frequency, the slow ones get half, a ramp between"

    _require_factor(yarn, frequencies_R, _SCALING, 0.1 * math.log(2) + 1, "With a factor of 2")
    given = {**_SCALING, "attention_factor": 0.75}
    _require_factor(yarn, frequencies_R, given, 0.75, "With attention_factor = 0.75")
    still = {**_SCALING, "factor": 1.0}
    _require_factor(yarn, frequencies_R, still, 1.0, "With a factor of 1")
    yield "the attention factor is 0.1 ln(s) + 1, and one that is given goes before it"

    for head_dim, theta, length, fast, slow, truncate in _SETTINGS:
        scaling = {
            "factor": 3.0,
            "original_max_position_embeddings": length,
            "beta_fast": fast,
            "beta_slow": slow,
            "truncate": truncate,
        }
        frequencies_R = _frequencies(head_dim, theta)
        slowed_R, _ = _stretched(yarn, frequencies_R, theta, scaling)
        ramp_R = torch.tensor(_ramp(head_dim, theta, length, fast, slow, truncate))
        if not same(slowed_R / frequencies_R, 1 - ramp_R * 2 / 3):
            raise Mistake(f"With heads of {head_dim}, base {theta} and {scaling} it is wrong.")
    yield "right for other heads, bases, lengths and ramps"

    _require_on_cpu(yarn)
    yield "on the CPU while the model is being built"

    try:
        yarn(frequencies_R, 1e4, factor=0.5, original_max_position_embeddings=50)
    except ValueError:
        yield "a factor below 1 is refused"
    else:
        raise Mistake(
            "yarn answers with a factor of 0.5, and should raise a ValueError.",
            "YaRN stretches. A factor below 1 is an error in a config.json; say so at once.",
        )


def _require_on_cpu(yarn: Part) -> None:
    frequencies_R = _frequencies(16, 1000.0)
    try:
        with meta_device():
            slowed_R, _ = yarn(frequencies_R, 1000.0, **_SCALING)
        on_cpu = slowed_R.device.type == "cpu"
    except RuntimeError:  # the frequencies are on the CPU, and the ramp isn't
        on_cpu = False
    if not on_cpu:
        wrong = "Under torch.device('meta') the frequencies don't stay on the CPU."
        raise Mistake(wrong, told_by(on_the_default_device))


def _stretched(
    yarn: Part, frequencies_R: torch.Tensor, rope_theta: float, scaling: dict[str, Any]
) -> tuple[torch.Tensor, float]:
    """What yarn gives, once it is a pair of the right kind. Settings go in by their names, as in
    the model."""

    def named(frequencies_R: torch.Tensor, rope_theta: float) -> Any:
        return yarn(frequencies_R, rope_theta, **scaling)

    got = call(named, frequencies_R, rope_theta, name="yarn")
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(
            f"yarn returned {describe(got)}, and a pair was wanted: frequencies and a number.",
            "End with `return slowed_R, attention_factor`.",
        )
    require_tensor(got[0], frequencies_R.shape, torch.float32, "yarn, as its first,")
    if not isinstance(got[1], float | int):
        raise Mistake(f"yarn returned, as its second, {describe(got[1])}, and a number was wanted.")
    return got


def _require_factor(
    yarn: Part, frequencies_R: torch.Tensor, scaling: dict[str, Any], want: float, when: str
) -> None:
    got = _stretched(yarn, frequencies_R, 1000.0, scaling)
    if not math.isclose(got[1], want, rel_tol=1e-6):
        raise Mistake(
            f"{when} the attention factor is {got[1]:.6g}, and should be {want:.6g}.",
            _why(got, frequencies_R, 1000.0, scaling),
        )


def _why(
    got: tuple[torch.Tensor, float],
    frequencies_R: torch.Tensor,
    rope_theta: float,
    scaling: dict[str, Any],
) -> str:
    def answering(mutant: Part) -> Part:
        def answer() -> tuple[torch.Tensor, torch.Tensor]:
            return _as_tensors(mutant(frequencies_R, rope_theta, **scaling))

        answer.__doc__ = mutant.__doc__
        return answer

    return usual_reason(map(answering, MUTANTS["yarn"]), _as_tensors(got))


def _as_tensors(pair: tuple[torch.Tensor, float]) -> tuple[torch.Tensor, torch.Tensor]:
    return pair[0], torch.tensor(float(pair[1]))


def _frequencies(head_dim: int, theta: float) -> torch.Tensor:
    return torch.tensor([theta ** (-2 * pair / head_dim) for pair in range(head_dim // 2)])


def _ramp(
    head_dim: int, theta: float, length: int, fast: float, slow: float, truncate: bool
) -> list[float]:
    # Solved the other way round: which pair has that frequency?
    low, high = (
        -math.log(2 * math.pi * turns / length, theta) * head_dim / 2 for turns in (fast, slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high += 0.001 * (low == high)
    return [min(max((pair - low) / (high - low), 0.0), 1.0) for pair in range(head_dim // 2)]
