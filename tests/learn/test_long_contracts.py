"""The contracts of the long-context parts: other right answers pass, wrong ones hear what is wrong.

That each mutant is caught and named is tested with all others, in test_contracts.py.
"""

import math

import pytest
import torch

from qwen2lite.learn.check import examine


def verdict(name, part):
    return examine(**{name: part}).results[0]


def ramp_by_loop(
    head_dim,
    rope_theta,
    original_max_position_embeddings,
    beta_fast=32.0,
    beta_slow=1.0,
    truncate=True,
):
    def pair(turns):
        wavelength = original_max_position_embeddings / turns
        return head_dim / 2 * math.log(wavelength / (2 * math.pi), rope_theta)

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low = max(low, 0)
    values = [(i - low) / (high - low) for i in range(head_dim // 2)]
    return torch.tensor([min(max(v, 0.0), 1.0) for v in values])


def yarn_by_lerp(
    frequencies_R,
    rope_theta,
    factor,
    original_max_position_embeddings,
    attention_factor=None,
    **ramp,
):
    if factor < 1:
        raise ValueError(factor)
    size = 2 * len(frequencies_R)
    ramp_R = ramp_by_loop(size, rope_theta, original_max_position_embeddings, **ramp)
    grown = 1 if factor == 1 else 1 + math.log(factor) / 10
    slowed_R = torch.lerp(frequencies_R, frequencies_R / factor, ramp_R)
    return slowed_R, grown if attention_factor is None else attention_factor


RIGHT = [("yarn_ramp", ramp_by_loop), ("yarn", yarn_by_lerp)]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("yarn_ramp", lambda size, *_: torch.zeros(size), "returned float32 [16], and float32 [8]"),
        ("yarn_ramp", lambda size, theta, length: ramp_by_loop(size, theta, length), "TypeError"),
        ("yarn", lambda f, t, **_: f, "returned float32 [8], and a pair was wanted"),
        ("yarn", lambda f, t, **_: (f.double(), 1.0), "float64 [8], and float32 [8]"),
        ("yarn", lambda f, t, **_: (f, torch.ones(1)), "as its second, float32 [1]"),
        ("yarn", lambda f, t, **_: (f * 0.9, 1.0), "are multiplied by [0.9, 0.9"),
        (
            "yarn",
            lambda f, t, **s: yarn_by_lerp(f, t, **{**s, "beta_fast": 32}),
            "With heads of 20",
        ),
        (
            "yarn",
            lambda f, t, **s: yarn_by_lerp(f, t, **{**s, "factor": max(s["factor"], 1)}),
            "should raise a ValueError",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
