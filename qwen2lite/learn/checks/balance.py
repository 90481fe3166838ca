"""What `load_balance_loss` has to do. Expected values are by hand, from probabilities in tenths."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    random_normal,
    require_gradient,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.balance import MUTANTS, loss_detached

Part = Callable[..., Any]

# Loads 3/4, 1/2, 1/2, 1/4 with two experts a token; mean probabilities 0.3, 0.25, 0.225, 0.225.
_TENTHS = [[4, 3, 2, 1], [4, 1, 3, 2], [1, 4, 3, 2], [3, 2, 1, 4]]


def check_load_balance_loss(load_balance_loss: Part) -> Iterator[str]:
    """Four tokens by hand, balance and collapse, two layers, padding, the gradient."""
    logits_XE = (torch.tensor(_TENTHS) / 10).log() + 3
    what = "Loads 3/4, 1/2, 1/2, 1/4 and mean probabilities 0.3, 0.25, 0.225, 0.225"
    _require(load_balance_loss, ([logits_XE], 2), 2.075, what)
    yield "E times the sum of load times mean probability, by hand"

    sure = torch.tensor([[20.0, 20.0, 0.0, 0.0], [0.0, 0.0, 20.0, 20.0]])
    _require(load_balance_loss, ([sure], 2), 2.0, "Two of four experts a token, all in equal use")
    _require(
        load_balance_loss, ([sure[:1]], 2), 4.0, "Two of four experts a token, always the same"
    )
    yield "perfect balance gives k, collapse onto k experts E"

    routers = [2 * random_normal(6, 5, seed=seed) for seed in range(3)]
    pooled = _by_loops([row for router in routers for row in router.tolist()], 2)
    _require(load_balance_loss, (routers, 2), pooled, "Three layers")
    alone = sum(_by_loops(router.tolist(), 2) for router in routers) / 3
    _require(load_balance_loss, (routers, 2, None, True), alone, "Three layers, with per_layer")
    yield "layers pooled, or each for itself"

    mask_BT = torch.tensor([[1, 1, 0], [1, 0, 0]])
    real = [[router.tolist()[token] for token in (0, 1, 3)] for router in routers]
    pooled = _by_loops(real[0] + real[1] + real[2], 2)
    what = "Three layers, of whose six tokens three are padding"
    _require(load_balance_loss, (routers, 2, mask_BT), pooled, what)
    alone = sum(_by_loops(rows, 2) for rows in real) / 3
    _require(load_balance_loss, (routers, 2, mask_BT, True), alone, f"{what}, with per_layer")
    yield "padding doesn't count"

    leaves = {f"layer {n}'s scores": r.clone().requires_grad_() for n, r in enumerate(routers)}
    loss = call(load_balance_loss, list(leaves.values()), 2)
    if not loss.requires_grad:
        wrong = "The loss has no gradient, so the router learns nothing from it."
        raise Mistake(wrong, told_by(loss_detached))
    require_gradient(loss, leaves, "load_balance_loss")
    yield "the gradient reaches the router's scores in every layer"


def _require(load_balance_loss: Part, inputs: tuple[Any, ...], want: float, what: str) -> None:
    got = call(load_balance_loss, *inputs)
    if not isinstance(got, torch.Tensor) or got.numel() != 1:
        raise Mistake(
            f"load_balance_loss returned {describe(got)}; a tensor of one number was wanted."
        )
    if not same(got.float().reshape(()), torch.tensor(want)):
        known = usual_reason(MUTANTS["load_balance_loss"], got, *inputs)
        raise Mistake(f"{what}: the loss is {want:.4g}, and yours is {got.item():.4g}.", known)


def _by_loops(rows: list[list[float]], number: int) -> float:
    """The formula, one token after the other, from the scores of all tokens that count."""
    experts = range(len(rows[0]))
    load, probability = [0.0 for _ in experts], [0.0 for _ in experts]
    for row in rows:
        powers = torch.tensor(row).double().exp()
        best = sorted(experts, key=row.__getitem__, reverse=True)[:number]
        for expert in experts:
            load[expert] += (expert in best) / len(rows)
            probability[expert] += float(powers[expert] / powers.sum()) / len(rows)
    return len(rows[0]) * sum(f * p for f, p in zip(load, probability, strict=True))
