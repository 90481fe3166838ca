"""What one step of training has to do: the loss, accumulation over unequal batches, the update.

Expected values are by hand: ln 2 and ln 4, and gradients that are means of a few whole numbers.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    random_normal,
    require_gradient,
    require_tensor,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import pretrain
from qwen2lite.learn.mutants import training_step as steps
from qwen2lite.learn.mutants.pretrain import MUTANTS
from qwen2lite.train.loss import IGNORED

Part = Callable[..., Any]
Batch = tuple[torch.Tensor, torch.Tensor]


def check_next_token_loss(next_token_loss: Part) -> Iterator[str]:
    """Probabilities of 1/4 and 1/2 by hand, ignored targets, none at all, and bfloat16 scores."""
    # Everything counts here: each usual mistake gives a number of its own.
    told = random_normal(2, 5, 7), torch.tensor([[1, 6, IGNORED, 0, 3], [4, *[IGNORED] * 3, 2]])
    asked = [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 4)]
    logp_BTV = told[0].log_softmax(-1)
    mean = -sum(float(logp_BTV[b, t, told[1][b, t]]) for b, t in asked) / len(asked)
    got = call(next_token_loss, *told)
    why = usual_reason(MUTANTS["next_token_loss"], got, *told)
    require_tensor(got, [], torch.float32, "next_token_loss", why)
    if abs(got.item() - mean) < 1e-4:
        why = ""  # right here, as are the mistakes that show elsewhere only

    by_hand = torch.log(torch.tensor([[[1.0, 1, 1, 1], [1, 2, 1, 0], [1, 2, 1, 0]]]))
    for targets, want, what in (
        ([0, IGNORED, IGNORED], math.log(4), "four equal scores, so p = 1/4"),
        (
            [IGNORED, 1, IGNORED],
            math.log(2),
            "scores log 1, log 2, log 1, −∞ and target 1: p = 1/2",
        ),
        ([3, 1, 2], (math.log(4) * 2 + math.log(2)) / 3, "p = 1/4, 1/2 and 1/4"),
    ):
        loss = call(next_token_loss, by_hand, torch.tensor([targets]))
        _require_loss(loss, want, what, why)
        yield f"{what}: {want:.4f}"

    _require_loss(got, mean, "two texts with 4 and 2 targets", why)
    yield "a mean over the positions that are asked, of all texts together"

    scores = told[0].clone().requires_grad_()
    require_gradient(next_token_loss(scores, told[1]), {"the scores": scores}, "next_token_loss")
    nothing = told[0], torch.full((2, 5), IGNORED)
    got = call(next_token_loss, *nothing)
    require_tensor(got, [], torch.float32, "next_token_loss")
    if got.item() != 0:
        why = told_by(pretrain.no_target_no_number) if math.isnan(got.item()) else ""
        raise Mistake(f"Where nothing is asked the loss is {got.item():g}; wanted 0.", why)
    yield "0 where nothing is asked"

    narrow = (8 * random_normal(2, 5, 50, seed=1)).bfloat16(), told[1]
    want = float(next_token_loss(narrow[0].float(), narrow[1]))
    got = call(next_token_loss, *narrow)
    if abs(got.item() - want) > 1e-4 * want:
        raise Mistake(
            f"Of bfloat16 scores the loss is {got.item():.5f}, and in float32 {want:.5f}.",
            told_by(pretrain.in_bfloat16),
        )
    yield "bfloat16 scores are turned into float32 first"


def _require_loss(got: Any, want: float, what: str, why: str) -> None:
    if not abs(got.item() - want) < 1e-4:
        raise Mistake(f"{what}: the loss is {want:.4f}, and yours is {got.item():.4f}.", why)


class _Mean(nn.Module):
    """Its loss is one weight times the mean of the inputs that are asked, and so is its gradient.

    `seen` notes at each call whether there was a gradient already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.seen: list[bool] = []

    def forward(self, inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.weight.grad is not None)
        asked_BT = targets_BT != IGNORED
        return self.weight[0] * (inputs_BT * asked_BT).sum() / asked_BT.sum().clamp(min=1)


def _batches() -> list[Batch]:
    """Three batches: 1, 2 and 3 are asked, then nothing, then 6. Their means are 2, 0 and 6, and the
    mean of all four is 3."""
    skip = IGNORED
    return [
        (torch.tensor([[1.0, 2, 3, 99, 99]]), torch.tensor([[0, 0, 0, skip, skip]])),
        (torch.tensor([[99.0, 99]]), torch.tensor([[skip, skip]])),
        (torch.tensor([[6.0, 99]]), torch.tensor([[0, skip]])),
    ]


def check_accumulate(accumulate: Part) -> Iterator[str]:
    """Batches with 3, 0 and 1 targets, whose gradients are 2, 0 and 6: together it is 3."""

    def seen(part: Part) -> tuple[float, float, bool, bool]:
        objective = _Mean()
        loss = call(part, objective, _batches(), name="accumulate")
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise Mistake(f"accumulate returned {describe(loss)}; the mean loss was wanted.")
        if objective.weight.grad is None:
            raise Mistake("Afterwards no parameter has a gradient.", "Is backward() called?")
        gradient = round(float(objective.weight.grad), 4)
        return round(loss.item(), 4), gradient, loss.requires_grad, objective.seen[-1]

    got = seen(accumulate)
    why = next((told_by(m) for m in MUTANTS["accumulate"] if seen(m) == got), "")
    loss, gradient, has_graph, before = got
    if gradient != 3:
        raise Mistake(
            f"Three batches with 3, 0 and 1 targets have the gradients 2, 0 and 6; all targets "
            f"together have (1 + 2 + 3 + 6) / 4 = 3, and yours is {gradient:g}.",
            why,
        )
    yield "batches with 3, 0 and 1 targets: the gradient of all four together"
    if loss != 3:
        raise Mistake(f"The mean loss over all targets is 3, and {loss:g} came back.", why)
    yield "and their mean loss comes back"
    if has_graph:
        raise Mistake("The loss that comes back has its graph with it.", why)
    if not before:
        raise Mistake("When the last batch is read, there is no gradient of the first yet.", why)
    yield "backward() after each batch, and no graph is kept"


class _Cliff(nn.Module):
    """The root of its weight, which is 0: the loss is a number and its gradient is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))

    def forward(self, inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        return self.weight.sqrt().sum() * inputs_BT.mean()


def check_training_step(training_step: Part) -> Iterator[str]:
    """Two steps by hand, a clipped one, and two that may not be made."""

    def moved(part: Part, max_norm: float) -> list[float]:
        """The losses and weights of two steps of 0.5, with an optimizer that was made for 0.25."""
        objective, found = _Mean(), []
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.25)
        for _ in range(2):
            loss = call(part, objective, _batches(), optimizer, 0.5, max_norm, name="training_step")
            if not isinstance(loss, float | torch.Tensor):
                raise Mistake(f"training_step returned {describe(loss)}; the loss was wanted.")
            found += [round(torch.as_tensor(loss).item(), 3), round(objective.weight.item(), 3)]
        return found

    for max_norm, want, what in (
        (100.0, [3, -0.5, -1.5, -2], "gradient 3 and learning rate 0.5: from 1 to -0.5 to -2"),
        (2.0, [3, 0, 0, -1], "clipped to 2: from 1 to 0 to -1"),
    ):
        got = moved(training_step, max_norm)
        if got != want:
            of_all = steps.MUTANTS["training_step"]
            why = next((told_by(m) for m in of_all if moved(m, max_norm) == got), "")
            raise Mistake(
                f"With a gradient of 3, learning rate 0.5 and max_norm {max_norm:g}, loss and weight "
                f"after two steps are {', '.join(f'{value:g}' for value in want)}; yours are "
                f"{', '.join(f'{value:g}' for value in got)}.",
                why,
            )
        yield what

    nan = [(torch.tensor([[float("nan")]]), torch.tensor([[0]]))]
    _require_refused(training_step, _Mean(), nan, "the loss is not a number", steps.steps_on_nan)
    one = [(torch.tensor([[1.0]]), torch.tensor([[0]]))]
    _require_refused(
        training_step, _Cliff(), one, "the gradient is infinite", steps.looks_at_the_loss_only
    )
    yield "no step where loss or gradient is no number: ValueError, and the weights are as they were"


def _require_refused(
    training_step: Part, objective: Any, batches: list[Batch], what: str, usual: Part
) -> None:
    weight = objective.weight.item()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    refused = False
    try:
        training_step(objective, batches, optimizer, 0.1, 1.0)
    except ValueError:
        refused = True
    if refused and objective.weight.item() == weight:
        return
    if refused:
        raise Mistake(
            f"Where {what}, it raises, and the weight is {objective.weight.item():g} by then.",
            told_by(steps.looks_too_late),
        )
    raise Mistake(f"Where {what}, no ValueError is raised.", told_by(usual))
