"""The load-balance loss against transformers and by hand; the bias by hand and at work."""

import math

import pytest
import torch
from torch import nn
from transformers.models.qwen2_moe.modeling_qwen2_moe import load_balancing_loss_func

from qwen2lite.model.balance import (
    BiasedRoute,
    balance,
    balance_by_bias,
    load_balance_loss,
    router_logits,
)
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.moe import route
from qwen2lite.model.qwen2 import Qwen2


def model(**changes) -> Qwen2:
    torch.manual_seed(0)
    values = {
        "vocab_size": 60,
        "hidden_size": 16,
        "intermediate_size": 10,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 5,
        "mlp_only_layers": (1,),
        "initializer_range": 0.3,
    }
    return Qwen2(Qwen2Config(**(values | changes)))


def random_routers(layers=3, tokens=14, experts=6) -> list[torch.Tensor]:
    seeded = torch.Generator().manual_seed(0)
    return [3 * torch.randn(tokens, experts, generator=seeded) for _ in range(layers)]


MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 1]])


@pytest.mark.parametrize("used", [1, 2, 6])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_the_loss_and_its_gradient_equal_transformers(used, mask):
    ours = [router.clone().requires_grad_() for router in random_routers()]
    theirs = [router.clone().requires_grad_() for router in random_routers()]
    got = load_balance_loss(ours, used, mask)
    want = load_balancing_loss_func(tuple(theirs), 6, used, mask)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    for side in (got, want):
        side.backward()
    for mine, peer in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, peer.grad, rtol=1e-5, atol=1e-8)


def test_the_loss_by_hand():
    """Two tokens, two experts, top-1: probabilities 3/4 and 1/4 for both, so expert 0 has load 1."""
    routers = [torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log()]
    assert load_balance_loss(routers, 1).item() == pytest.approx(2 * (1 * 0.75 + 0 * 0.25))


def test_perfect_balance_gives_k_and_collapse_gives_the_number_of_experts():
    each_its_own = 50.0 * torch.eye(8)
    assert load_balance_loss([each_its_own], 1).item() == pytest.approx(1)
    assert load_balance_loss([torch.cat([each_its_own] * 3)], 1).item() == pytest.approx(1)
    all_the_same = torch.tensor([50.0, 50.0, 0, 0, 0, 0, 0, 0]).expand(20, 8)
    assert load_balance_loss([all_the_same], 2).item() == pytest.approx(8)


def test_only_the_loss_per_layer_sees_what_cancels_across_layers():
    """Layer 0 sends every token to expert 0, layer 1 to expert 1: pooled, both look alike."""
    one, other = torch.tensor([9.0, 0.0]).expand(5, 2), torch.tensor([0.0, 9.0]).expand(5, 2)
    assert load_balance_loss([one, other], 1).item() == pytest.approx(1)
    assert load_balance_loss([one, other], 1, per_layer=True).item() == pytest.approx(2, rel=1e-3)


def test_the_loss_per_layer_is_the_mean_of_each_layers_own():
    routers = random_routers()
    each = [load_balancing_loss_func((router,), 6, 2, MASK).item() for router in routers]
    got = load_balance_loss(routers, 2, MASK, per_layer=True)
    assert got.item() == pytest.approx(sum(each) / 3, rel=1e-6)


def test_statistics_by_hand():
    logits_XE = torch.tensor([[0.5, 0.25, 0.25 - 1e-6], [1e-9, 0.5, 0.5 + 1e-6], [9, 9, 9]]).log()
    found = balance(logits_XE, 2, mask=torch.tensor([1, 1, 0]))
    assert found.load_E.tolist() == [0.5, 1.0, 0.5]
    torch.testing.assert_close(found.probability_E, torch.tensor([0.25, 0.375, 0.375]))
    want = (1.5 * math.log(2) + math.log(2)) / 2
    assert found.entropy.item() == pytest.approx(want, rel=1e-4)


def test_router_logits_are_those_of_the_sparse_layers_and_have_gradients():
    moe = model()
    with router_logits(moe) as routers:
        moe(torch.arange(10).view(2, 5))
    assert [tuple(router.shape) for router in routers] == [(10, 6)] * 2
    load_balance_loss(routers, 2).backward()
    gates = [moe.model.layers[n].mlp.gate.weight for n in (0, 2)]
    assert all(gate.grad is not None and gate.grad.abs().sum() > 0 for gate in gates)
    moe(torch.arange(10).view(2, 5))
    assert len(routers) == 2, "the record goes on after its end"


def test_nothing_is_left_on_the_model_when_its_run_breaks():
    moe = model()
    with pytest.raises(ValueError, match="outside the vocabulary"), router_logits(moe):
        moe(torch.tensor([[60]]))
    assert not any(len(module._forward_hooks) for module in moe.modules())


def test_a_bias_of_zero_routes_as_without_one():
    for norm in (False, True):
        logits_XE = random_routers()[0]
        got, want = BiasedRoute(6)(logits_XE, 3, norm), route(logits_XE, 3, norm)
        assert torch.equal(got[1], want[1])
        torch.testing.assert_close(got[0], want[0])


def test_the_bias_chooses_and_does_not_weigh():
    biased = BiasedRoute(3)
    biased.bias_E.copy_(torch.tensor([0.0, 0.0, 0.5]))
    weights, chosen = biased(torch.tensor([[0.6, 0.3, 0.1]]).log(), 2, False)
    # 0.6, 0.3 and 0.1 + 0.5 are compared; expert 2 counts with its own 0.1.
    found = dict(zip(chosen[0].tolist(), weights[0].tolist(), strict=True))
    assert found == {0: pytest.approx(0.6), 2: pytest.approx(0.1)}


def test_an_update_by_hand():
    biased = BiasedRoute(3, rate=0.01)
    biased(
        torch.tensor([[9.0, 1.0, 0.0]] * 3 + [[0.0, 9.0, 1.0]] * 2 + [[0.0, 1.0, 9.0]]), 1, False
    )
    biased.update()  # 3, 2 and 1 tokens, the mean is 2
    torch.testing.assert_close(biased.bias_E, torch.tensor([-0.01, 0.0, 0.01]))
    biased.update()
    torch.testing.assert_close(biased.bias_E, torch.tensor([-0.01, 0.0, 0.01]))


def test_bfloat16_scores_are_weighed_in_float32_and_an_idle_expert_is_counted():
    biased, logits_XE = BiasedRoute(3), torch.tensor([[1.0, 0.6, 0.2]], dtype=torch.bfloat16)
    weights, _ = biased(logits_XE, 1, False)
    want_E = logits_XE.float().softmax(-1)[0]
    torch.testing.assert_close(weights, want_E[None, :1])
    torch.testing.assert_close(balance(logits_XE, 1).probability_E, want_E)
    assert biased.counts_E.tolist() == [1, 0, 0] and not biased.counts_E.is_floating_point()
    assert set(biased.state_dict()) == {"bias_E"}


def test_what_is_routed_outside_of_training_is_not_counted():
    biased = BiasedRoute(3).eval()
    biased(torch.randn(5, 3), 1, False)
    assert biased.counts_E.sum() == 0


def test_the_bias_balances_a_model_without_touching_its_weights():
    moe = model(num_hidden_layers=1, mlp_only_layers=())
    ids_BT = torch.randint(0, 60, (4, 50), generator=torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in moe.named_parameters()}
    (biased,) = balance_by_bias(moe, rate=0.005)
    spread = []
    for _ in range(60):
        with torch.no_grad():
            moe(ids_BT)
        spread.append(biased.counts_E.float().std() / biased.counts_E.float().mean())
        biased.update()
    assert spread[0] > 0.3
    assert spread[-1] < spread[0] / 4
    assert all(torch.equal(p, before[name]) for name, p in moe.named_parameters())


def test_the_loss_balances_a_router():
    torch.manual_seed(0)
    x_XD, gate = torch.randn(200, 8), nn.Linear(8, 6, bias=False)
    with torch.no_grad():
        gate.weight[0] += x_XD.mean(0) * 20
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    first = load_balance_loss([gate(x_XD)], 2).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = load_balance_loss([gate(x_XD)], 2)
        loss.backward()
        optimizer.step()
    assert first > 2.1
    assert loss.item() < 2.03


def test_the_bias_is_saved_with_the_training_state():
    moe = model()
    balance_by_bias(moe)[0].bias_E.fill_(0.25)
    saved = moe.state_dict()
    again = model()
    balance_by_bias(again)
    again.load_state_dict(saved)
    assert again.model.layers[0].mlp.route.bias_E.tolist() == [0.25] * 6
