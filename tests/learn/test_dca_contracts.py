"""The tasks of lesson 53 accept every right answer, and say in a sentence what is wrong.

Those of the parts are in test_long_contracts.py, and that each mutant is named in test_contracts.py.
"""

import math

import pytest
import torch

from qwen2lite.model.dca import dca_distances
from qwen2lite.model.pieces import merge_pieces
from tests.learn.verdict import verdict


def by_formula(chunk_size, local_size):
    return min(chunk_size + 1, 2 * (chunk_size - local_size))


def by_the_matrix(chunk_size, local_size):
    if chunk_size > 100:  # the matrix of 32,768 tokens is a billion numbers
        return chunk_size + 1
    distances = dca_distances(3 * chunk_size, chunk_size, local_size)[:, 0].tolist()
    return next(t for t, distance in enumerate(distances) if distance != t)


def by_cases(chunk_size, local_size):
    if 2 * local_size >= chunk_size:
        return 2 * chunk_size - 2 * local_size
    return chunk_size + 1


def merged_by_pairs(mixed, lse):
    merged, so_far = mixed[0], lse[0]
    for piece, one in zip(mixed[1:], lse[1:], strict=True):
        both = torch.logaddexp(so_far, one)
        merged = (so_far - both).exp()[..., None] * merged + (one - both).exp()[..., None] * piece
        so_far = both
    return merged


def merged_with_a_maximum(mixed, lse):
    top, total, summed = torch.full_like(lse[0], -math.inf), 0.0, 0.0
    for piece, one in zip(mixed, lse, strict=True):
        highest = torch.maximum(top, one)
        shrink, weight = (top - highest).exp(), (one - highest).exp()
        total = total * shrink + weight
        summed = summed * shrink[..., None] + piece * weight[..., None]
        top = highest
    return summed / total[..., None]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tokens_that_agree", by_formula),
        ("tokens_that_agree", by_the_matrix),
        ("tokens_that_agree", by_cases),
        ("running_merge", merged_by_pairs),
        ("running_merge", merged_with_a_maximum),
        ("running_merge", merge_pieces),
    ],
)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize("size", range(2, 13))
def test_the_formula_is_what_the_matrix_shows(size):
    for local in range(1, size):
        assert by_formula(size, local) == by_the_matrix(size, local)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("tokens_that_agree", lambda c, w: 8.0, "a whole number was wanted"),
        ("tokens_that_agree", lambda c, w: 3, "it is 8, yours 3"),
        ("tokens_that_agree", lambda c, w: c + 1, "local_size 4 it is 8, yours 9"),
        ("running_merge", lambda mixed, lse: lse[0], "float32 [1, 1, 1], and float32 [1, 1, 1, 1]"),
        ("running_merge", lambda mixed, lse: mixed[0], "wanted 12.5, got [10]"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
