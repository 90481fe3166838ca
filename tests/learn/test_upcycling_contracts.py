"""The contracts of lesson 63's tasks accept every right answer and tell wrong ones clearly."""

import math

import pytest
import torch

from qwen2lite.train.upcycle import start_anew
from tests.learn.verdict import verdict


def copies_by_counting(dense, width, experts):
    copies = 0
    while copies * dense < experts * width:
        copies += 1
    return copies


def cut_by_index(gate, up, down, orders, width, count):
    columns = torch.cat(tuple(orders))[: width * count].view(count, width)
    return [(gate[c], up[c], down[:, c]) for c in columns]


def cut_by_copies(gate, up, down, orders, width, count):
    row = [torch.cat([m[order] for order in orders]) for m in (gate, up, down.T)]
    split = [matrix[: width * count].split(width) for matrix in row]
    return [[g, u, d.T] for g, u, d in zip(*split, strict=True)]


def cut_by_loop(gate, up, down, orders, width, count):
    columns = [int(c) for order in orders for c in order]
    found = []
    for expert in range(count):
        mine = columns[expert * width : expert * width + width]
        g, u = (torch.stack([m[c] for c in mine]) for m in (gate, up))
        found.append((g, u, torch.stack([down[:, c] for c in mine], dim=1)))
    return tuple(found)


def anew_by_the_package(gate, up, down, share, std, rng):
    copies = gate.clone(), up.clone(), down.T.clone()
    start_anew(copies, share, "columns", std, rng)
    return copies[0], copies[1], copies[2].T


def anew_by_where(gate, up, down, share, std, rng):
    new = torch.zeros(len(gate), dtype=torch.bool)
    new[torch.randperm(len(gate), generator=rng)[: round(len(gate) * share)]] = True
    g, u, d = (std * torch.randn(m.shape, generator=rng) for m in (gate, up, down))
    return (
        torch.where(new[:, None], g, gate),
        torch.where(new[:, None], u, up),
        torch.where(new, d, down),
    )


def the_first_anew(gate, up, down, share, std, rng):
    """Which half is free."""
    count, mlp = round(len(gate) * share), [gate.clone(), up.clone(), down.clone()]
    mlp[0][:count].normal_(0, std, generator=rng)
    mlp[1][:count].normal_(0, std, generator=rng)
    mlp[2][:, :count].normal_(0, std, generator=rng)
    return mlp


def shuffle_by_order(gate, up, down, rng):
    order = torch.randperm(len(gate), generator=rng)
    return gate[order], up[order], down[:, order]


def shuffle_by_one_matrix(gate, up, down, rng):
    whole = torch.cat((gate, up, down.T), dim=1)
    whole = whole[torch.randperm(len(gate), generator=rng)]
    gate, up, down = whole.split(gate.shape[1], dim=1)
    return gate, up, down.T


def turned_around(gate, up, down, rng):
    return gate.flip(0), up.flip(0), down.flip(1)


def factor_by_loop(weights, dense, width):
    sums = [sum(row) for row in weights.tolist()]
    return dense / (width * sum(sums) / len(sums))


RIGHT = [
    ("copies_needed", lambda d, w, n: math.ceil(n * w / d)),
    ("copies_needed", lambda d, w, n: -(-n * w // d)),
    ("copies_needed", copies_by_counting),
    ("cut_experts", cut_by_index),
    ("cut_experts", cut_by_copies),
    ("cut_experts", cut_by_loop),
    ("half_anew", anew_by_the_package),
    ("half_anew", anew_by_where),
    ("half_anew", the_first_anew),
    ("mended_shuffle", shuffle_by_order),
    ("mended_shuffle", shuffle_by_one_matrix),
    ("mended_shuffle", turned_around),
    ("louder", lambda p, d, w: d / (w * p.sum(1).mean().item())),
    ("louder", lambda p, d, w: d * len(p) / (w * p.sum())),
    ("louder", factor_by_loop),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def in_place(gate, up, down, share, std, rng):
    for matrix in (gate, up):
        matrix[:20] = 0
    return gate, up, down


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("copies_needed", lambda d, w, n: n * w / d, "returned 4.4; a whole number"),
        ("copies_needed", lambda d, w, n: 1, "a copy has 10: 5 copies, and yours are 1"),
        ("cut_experts", lambda *mlp: [], "A list of 3 experts was wanted, and you gave 0 of them"),
        ("cut_experts", lambda *mlp: 3, "and you gave 3"),
        ("cut_experts", lambda *mlp: [mlp[:2]] * 3, "three matrices were wanted"),
        ("cut_experts", lambda *mlp: [mlp[:3]] * 3, "Expert 0's gate_proj"),
        ("half_anew", in_place, "changed a tensor"),
        ("half_anew", lambda g, u, d, *rest: (g, u, d), "20 should be new, in all three"),
        ("mended_shuffle", lambda g, u, d, rng: (g, u), "three matrices were wanted"),
        ("mended_shuffle", lambda g, u, d, rng: (-g, u, d), "and shuffled it says"),
        ("louder", lambda p, d, w: p, "one number was wanted"),
        ("louder", lambda p, d, w: 2.0, "the factor is 6, and yours is 2"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
