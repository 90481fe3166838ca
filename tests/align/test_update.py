"""An update by hand, and one that must not be made."""

import math

import pytest
import torch

from qwen2lite.align.update import update


def place(*numbers):
    weights = torch.nn.Parameter(torch.tensor(numbers))
    return weights, torch.optim.SGD([weights], lr=1.0)


def test_a_long_gradient_is_shortened_and_an_old_one_is_gone():
    """The gradient (3, 4) is 5 long; shortened to 1 it is (0.6, 0.8)."""
    weights, optimizer = place(1.0, 1.0)
    weights.grad = torch.tensor([100.0, 0.0])
    update(optimizer, (weights * torch.tensor([3.0, 4.0])).sum(), max_gradient_norm=1.0)
    torch.testing.assert_close(weights.detach(), torch.tensor([0.4, 0.2]))


def test_a_short_gradient_is_left_as_it_is():
    weights, optimizer = place(1.0, 1.0)
    update(optimizer, (weights * torch.tensor([3.0, 4.0])).sum(), max_gradient_norm=6.0)
    torch.testing.assert_close(weights.detach(), torch.tensor([-2.0, -3.0]))


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_what_is_no_number_moves_nothing(factor):
    weights, optimizer = place(1.0, 2.0)
    with pytest.raises(ValueError, match="moved no weight. Begin again with a lower"):
        update(optimizer, (weights * factor).sum(), max_gradient_norm=1.0)
    assert weights.tolist() == [1.0, 2.0]


def test_a_finite_loss_with_a_gradient_that_is_none_moves_nothing():
    """The root of 0 is 0, and its slope is infinite."""
    weights, optimizer = place(0.0, 2.0)
    with pytest.raises(ValueError, match="the loss is 0.0 and the norm of its gradient"):
        update(optimizer, weights[0].sqrt(), max_gradient_norm=1.0)
    assert weights.tolist() == [0.0, 2.0]
