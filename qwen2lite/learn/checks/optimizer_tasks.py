"""What the exercise 42_optimizer asks beside the optimizer: a schedule, and an update to mend."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.checks.optimizer import warm_up_pytorch
from qwen2lite.learn.contract import Mistake, call, describe, numbers, same, told_by
from qwen2lite.learn.mutants.optimizer_tasks import MUTANTS

Part = Callable[..., Any]


def check_cosine(cosine: Part) -> Iterator[str]:
    """Six updates by hand, two of them warm-up; other floors; no warm-up; after the end."""

    def factors(part: Part, count: int, *rest: float) -> torch.Tensor:
        answers = [call(part, step, *rest, name="cosine") for step in range(count)]
        for answer in answers:
            if not isinstance(answer, int | float | torch.Tensor):
                raise Mistake(f"cosine returned {describe(answer)}; one number was wanted.")
        return torch.tensor([float(answer) for answer in answers])

    got = factors(cosine, 9, 6, 2, 0.1)
    why = next((told_by(m) for m in MUTANTS["cosine"] if same(got, factors(m, 9, 6, 2, 0.1))), "")
    # A quarter, a half, three quarters of the wave: (1 + cos 45°)/2, (1 + cos 90°)/2, ...
    _require(got[:2], [0.5, 1.0], "Two steps of warm-up have the factors", why)
    yield "two steps of warm-up: a half, then the peak"
    _require(got[2:6], [0.8682, 0.55, 0.2318, 0.1], "Four steps down to 0.1 have the factors", why)
    yield "four steps down, a quarter of the wave each, and the last update at the floor"
    _require(got[6:], [0.1] * 3, "After the last step come the factors", why)
    yield "after the end it stays at the floor"
    straight_down, wanted = factors(cosine, 4, 4, 0, 0.0), [0.8536, 0.5, 0.1464, 0.0]
    _require(straight_down, wanted, "Four steps down to 0 without a warm-up have the factors", why)
    yield "it takes any floor, and no warm-up"


def _require(got: torch.Tensor, want: list[float], what: str, why: str) -> None:
    if not torch.allclose(got, torch.tensor(want), rtol=0.0, atol=1e-4):
        raise Mistake(f"{what} {numbers(got)}; wanted {numbers(torch.tensor(want))}.", why)


class _Line(nn.Module):
    """A loss whose gradient is its input: the dot product of the weight and that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, slope: torch.Tensor) -> torch.Tensor:
        return self.weight @ slope


def check_mended_update(mended_update: Part) -> Iterator[str]:
    """Two batches with gradients (6, 0) and (0, -8): their mean is (3, -4), of norm 5."""
    warm_up_pytorch()

    def seen(part: Part) -> torch.Tensor:
        """Norms and weights after an update that needs no clipping, and after two that do."""
        batches = [(torch.tensor([6.0, 0.0]),), (torch.tensor([0.0, -8.0]),)]
        found: list[float] = []
        for longest in (100.0, 2.5):
            objective = _Line()
            optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
            for _ in range(2):
                norm = call(part, objective, batches, optimizer, longest, name="mended_update")
                if not isinstance(norm, float | torch.Tensor):
                    raise Mistake(
                        f"mended_update returned {describe(norm)}; the norm of the gradient before "
                        "it was clipped was wanted."
                    )
                found += [float(norm), *objective.weight.tolist()]
        return torch.tensor(found)

    got = seen(mended_update)
    why = next((told_by(m) for m in MUTANTS["mended_update"] if same(got, seen(m))), "")
    first, second, clipped = got[:3], got[3:6], got[6:9]
    _moved(
        first, [5.0, -3.0, 4.0], "two batches with gradients (6, 0) and (0, -8), max_norm 100", why
    )
    yield "the batches' gradients are averaged: (3, -4), of norm 5"
    _moved(second, [5.0, -6.0, 8.0], "the same update once more", why)
    yield "the next update starts with no gradient left over"
    _moved(clipped, [5.0, -1.5, 2.0], "the first of these updates with max_norm 2.5", why)
    yield "clipped to 2.5 before the step: it moves by (1.5, -2)"


def _moved(got: torch.Tensor, want: list[float], what: str, why: str) -> None:
    if not torch.allclose(got, torch.tensor(want), rtol=1e-3):
        raise Mistake(
            f"After {what}, from 0 and with SGD of lr 1, the norm is {got[0]:.4g} and the weight "
            f"{numbers(got[1:])}; wanted {want[0]:g} and {numbers(torch.tensor(want[1:]))}.",
            why,
        )
