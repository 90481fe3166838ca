"""Many batches make the gradient of one large batch, on one core or on several."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.train.gradients import (
    Cores,
    accumulate,
    autocast,
    targets_in,
    targets_in_all,
)
from qwen2lite.train.loss import IGNORED, NextToken, next_token_loss


def uneven(batches):
    """Takes targets away: half of the first batch's, one sequence of the second's, none after."""
    (_, first), (_, second), *_ = batches
    first, second = first.clone(), second.clone()
    first[:, ::2] = IGNORED
    second[0] = IGNORED
    return [(batches[0][0], first), (batches[1][0], second), *batches[2:]]


def one_large(objective, batches):
    """The oracle: all sequences at once, the model's own loss, and backward()."""
    ids, targets = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    loss = next_token_loss(objective.model(ids), targets)
    loss.backward()
    return loss.detach()


def results(method, model, batches):
    model.zero_grad()
    loss = method(NextToken(model), batches)
    return [loss, *(parameter.grad.clone() for parameter in model.parameters())]


def agree(method, model, batches):
    wanted = results(one_large, model, batches)
    assert all(grad.any() for grad in wanted)
    for got, want in zip(results(method, model, batches), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-6)


METHODS = {
    "one core": accumulate,
    "two cores": Cores(2).accumulate,
    "more cores than sequences": Cores(5).accumulate,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [1, 2, 4])
def test_k_batches_are_one_large(method, number, small, some_batches):
    agree(METHODS[method], small(), some_batches(number))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_counts_by_its_targets(method, small, some_batches):
    batches = uneven(some_batches(3))
    assert [targets_in(batch) for batch in batches] == [3 * 5, 2 * 11, 33]
    agree(METHODS[method], small(), batches)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_targets_adds_nothing(method, small, some_batches):
    first, second = some_batches(2)
    nothing = (second[0], torch.full_like(second[1], IGNORED))
    model = small()
    alone = results(METHODS[method], model, [first])
    for got, want in zip(results(METHODS[method], model, [first, nothing]), alone, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


def not_divided(objective, batches):
    losses = [objective(*batch) for batch in batches]
    torch.stack(losses).sum().backward()
    return torch.stack(losses).mean().detach()


def mean_of_means(objective, batches):
    """What every second training script does, and what is right for equal batches only."""
    loss = torch.stack([objective(*batch) for batch in batches]).mean()
    loss.backward()
    return loss.detach()


def only_the_last(objective, batches):
    for batch in batches:
        objective.zero_grad()
        loss = accumulate(objective, [batch])
    return loss


@pytest.mark.parametrize("bug", [not_divided, mean_of_means, only_the_last])
def test_an_accumulation_with_a_bug_is_caught(bug, small, some_batches):
    with pytest.raises(AssertionError):
        agree(bug, small(), uneven(some_batches(3)))


def test_the_mean_of_means_is_right_for_equal_batches(small, some_batches):
    agree(mean_of_means, small(), some_batches(3))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_added_to_those_that_are_there(method, small, some_batches):
    model, batches = small(), some_batches(2)
    once = results(METHODS[method], model, batches)
    METHODS[method](NextToken(model), batches)
    for parameter, grad in zip(model.parameters(), once[1:], strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad, rtol=1e-5, atol=1e-7)


def test_cores_make_the_same_bits_each_time(small, some_batches):
    model, batches, cores = small(), some_batches(2), Cores(3)
    first = results(cores.accumulate, model, batches)
    for _ in range(20):
        again = results(cores.accumulate, model, batches)
        assert all(map(torch.equal, first, again))


def test_cores_leave_the_other_threads_alone():
    torch.set_num_threads(3)
    threads = list(Cores(2)._threads.map(lambda _: torch.get_num_threads(), range(8)))
    assert threads == [1] * 8
    assert torch.get_num_threads() == 3


def test_a_mistake_on_another_core_is_not_lost(small, some_batches):
    ((ids, targets),) = some_batches(1)
    ids[2, 3] = 99  # the vocabulary ends at 61
    with pytest.raises(IndexError, match="out of range"):
        Cores(3).accumulate(NextToken(small()), [(ids, targets)])


class Sum(nn.Module):
    """Two weights that are added: autograd gives both the same tensor as their gradient."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.idle = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, ids_BT, targets_BT):
        logits = self.a + self.b
        return F.cross_entropy(logits.expand(targets_BT.numel(), 3), targets_BT.flatten())


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_added_have_gradients_of_their_own(method):
    model = Sum()
    batch = (torch.zeros(4, 1), torch.tensor([[0], [0], [1], [2]]))
    METHODS[method](model, [batch, batch])
    # p - onehot, p = 1/3 each, on average over 2, 1 and 1 of 4.
    wanted = torch.tensor([1 / 3 - 1 / 2, 1 / 3 - 1 / 4, 1 / 3 - 1 / 4])
    torch.testing.assert_close(model.a.grad, wanted)
    torch.testing.assert_close(model.b.grad, wanted)
    model.a.grad.mul_(2)
    torch.testing.assert_close(model.b.grad, wanted)
    assert model.idle.grad is None and model.frozen.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_experts_learn_from_the_tokens_that_were_sent_to_them(method, small, some_batches):
    model = small(num_experts=6, num_experts_per_tok=1, moe_intermediate_size=10)
    (batch,) = some_batches(1)
    results_ = []
    for function in (one_large, METHODS[method]):
        model.zero_grad()
        function(NextToken(model), [batch])
        grads = [parameter.grad for parameter in model.parameters()]
        results_.append([torch.zeros(1) if grad is None else grad for grad in grads])
    for got, want in zip(*results_, strict=True):
        torch.testing.assert_close(*torch.broadcast_tensors(got, want), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_learn_is_said(method, small, some_batches):
    batches = [(ids, torch.full_like(targets, IGNORED)) for ids, targets in some_batches(2)]
    with pytest.raises(ValueError, match="no position in 2 batches has a target, all are -100"):
        METHODS[method](NextToken(small()), batches)
    with pytest.raises(ValueError, match="look at how they were masked"):
        targets_in_all(batches)


def test_autocast_is_where_it_is_asked_for(small, some_batches, monkeypatch):
    seen = []

    class Look(NextToken):
        def forward(self, ids_BT, targets_BT):
            on = torch.is_autocast_enabled("cpu")
            seen.append(torch.get_autocast_dtype("cpu") if on else None)
            return super().forward(ids_BT, targets_BT)

    model, batches = small(), some_batches(2)
    rough = accumulate(Look(model), batches, torch.bfloat16)
    exact = accumulate(Look(model), batches)
    assert seen == [torch.bfloat16] * 2 + [None] * 2
    assert 0 < abs(float(rough - exact)) < 0.02 * float(exact)
    with autocast(torch.device("cpu"), torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
