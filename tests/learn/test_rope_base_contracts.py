"""The contracts of lesson 51 accept every right answer and tell wrong ones in a clear sentence.

That each mutant is caught and named is tested with all others, in test_contracts.py.
"""

import math

import pytest
import torch

from qwen2lite.evaluate.perplexity import perplexity_by_position
from qwen2lite.model.rope import rotary_frequencies
from tests.learn.verdict import verdict


def slow_by_loop(head_dim, rope_theta, length):
    found = []
    for i in range(head_dim // 2):
        if 2 * math.pi * rope_theta ** (2 * i / head_dim) > length:
            found.append(i)
    return found


def slow_by_tensor(head_dim, rope_theta, length):
    angles_R = length * rotary_frequencies(head_dim, rope_theta)
    return (angles_R < 2 * math.pi).nonzero().flatten().tolist()


def slow_from_the_first(head_dim, rope_theta, length):
    first = head_dim / 2 * math.log(length / (2 * math.pi), rope_theta)
    return range(math.floor(first) + 1, head_dim // 2)


def base_by_formula(head_dim, rope_theta, trained, longer):
    first = slow_by_loop(head_dim, rope_theta, trained)[0]
    return rope_theta * (longer / trained) ** (head_dim / 2 / first)


def base_by_the_largest(head_dim, rope_theta, trained, longer):
    slow = slow_by_loop(head_dim, rope_theta, trained)
    return max(rope_theta * (longer / trained) ** (head_dim / (2 * i)) for i in slow)


def base_by_search(head_dim, rope_theta, trained, longer):
    slow = slow_by_loop(head_dim, rope_theta, trained)
    base = rope_theta
    while any(
        longer * base ** (-2 * i / head_dim)
        > trained * rope_theta ** (-2 * i / head_dim) * 1.000001
        for i in slow
    ):
        base *= 1.001
    return base


def positions_by_loop(losses, width):
    found = []
    for start in range(0, losses.shape[1], width):
        found.append(math.exp(losses[:, start : start + width].mean().item()))
    return found


def positions_by_mean_first(losses, width):
    return torch.stack([part.mean().exp() for part in losses.mean(0).split(width)])


def base_by_get(config):
    together = config.get("rope_parameters") or config
    return together.get("rope_theta", 10_000.0)


def base_by_if(config):
    if config.get("rope_parameters") and "rope_theta" in config["rope_parameters"]:
        return float(config["rope_parameters"]["rope_theta"])
    return config.get("rope_theta", 10_000)


RIGHT = [
    ("never_turned", slow_by_loop),
    ("never_turned", slow_by_tensor),
    ("never_turned", slow_from_the_first),
    ("smallest_base", base_by_formula),
    ("smallest_base", base_by_the_largest),
    ("smallest_base", base_by_search),
    ("perplexity_by_position", positions_by_loop),
    ("perplexity_by_position", positions_by_mean_first),
    ("perplexity_by_position", lambda x, w: [g.mean().exp().item() for g in x.T.split(w)]),
    ("mended_base", base_by_get),
    ("mended_base", base_by_if),
    ("mended_base", lambda c: {**c, **(c.get("rope_parameters") or {})}.get("rope_theta", 1e4)),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_the_packages_function_passes_too():
    assert verdict("perplexity_by_position", perplexity_by_position).state == "right"


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("never_turned", lambda h, t, n: 9, "returned 9; a list"),
        ("never_turned", lambda h, t, n: [2.0, 3.0], "a list of numbers"),
        ("never_turned", lambda h, t, n: [0], "is [0]; [2, 3] was wanted"),
        ("smallest_base", lambda h, b, t, n: "1e6", "a number was wanted"),
        ("smallest_base", lambda h, b, t, n: 1e6, "is 1,000,000; 160,000 was wanted"),
        ("perplexity_by_position", lambda losses, width: 2.0, "returned 2.0; a list"),
        ("perplexity_by_position", lambda losses, width: [2.0], "yours are [2]"),
        ("mended_base", lambda config: "1e6", "a number was wanted"),
        ("mended_base", lambda config: 7, "the base is 1,000,000, and yours is 7"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
