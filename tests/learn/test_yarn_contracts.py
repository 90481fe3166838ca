"""The contracts of lesson 52 accept every right answer.

Those of its parts are in test_long_contracts.py. That each mutant is caught and
named is tested with all others, in test_contracts.py.
"""

import math

import pytest
import torch

from qwen2lite.model.yarn import yarn_attention_factor
from tests.learn.verdict import verdict


def growth_by_if(factor):
    if factor <= 1:
        return 1
    return (1 + math.log(factor) / 10) ** 2


def angles_by_lerp(positions, frequencies, ramp, factor, trained):
    return positions[:, None] * torch.lerp(frequencies, frequencies / factor, ramp)


def angles_by_loop(positions, frequencies, ramp, factor, trained):
    rows = []
    for t in positions.tolist():
        pairs = zip(frequencies.tolist(), ramp.tolist(), strict=True)
        rows.append([t * f * (1 - r) + t * f * r / factor for f, r in pairs])
    return torch.tensor(rows)


def angles_by_outer(positions, frequencies, ramp, factor, trained):
    return torch.outer(positions.float(), frequencies * (1 - ramp + ramp / factor))


RIGHT = [
    ("score_growth", growth_by_if),
    ("score_growth", lambda s: yarn_attention_factor(s) ** 2),
    ("score_growth", lambda s: (0.1 * math.log(max(s, 1)) + 1) ** 2),
    ("mended_angles", angles_by_lerp),
    ("mended_angles", angles_by_loop),
    ("mended_angles", angles_by_outer),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("score_growth", lambda s: "1.3", "a number was wanted"),
        ("score_growth", lambda s: 2.0, "score_growth(4) is 2; 1.2965 was wanted"),
        ("score_growth", lambda s: (0.1 * math.log(s) + 1) ** 2, "score_growth(0.5) is 0.86"),
        ("mended_angles", lambda p, f, r, s, n: p * f, "and float32 [3, 3] was wanted"),
        ("mended_angles", lambda p, f, r, s, n: p[:, None] * f, "have the angles [[1, 0.3125"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
