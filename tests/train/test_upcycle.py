"""Upcycling: the columns are the dense ones until half of them starts anew."""

import dataclasses

import pytest
import torch

from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.grouped import grouped_moe
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.train.upcycle import Recipe, expert_columns, upcycle

UNTOUCHED = Recipe(fresh_share=0.0)


def dense(parts: Parts | None = None) -> Qwen2:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    return Qwen2(config, parts).eval()


def with_experts(model: Qwen2, **changes) -> Qwen2Config:
    values = {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 25,
        "mlp_only_layers": (1,),
    }
    return dataclasses.replace(model.config, **(values | changes))


def columns(mlp) -> torch.Tensor:
    """One row a column: its numbers in gate_proj, up_proj and down_proj, side by side."""
    down = mlp.down_proj.weight.T
    return torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight, down), dim=1).detach()


def which(found: torch.Tensor, among: torch.Tensor) -> list[int]:
    """The place of each row among the others; -1 where it isn't there."""
    equal = (found[:, None] == among[None]).all(-1)
    return [row.nonzero().item() if row.any() else -1 for row in equal]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_experts_together_are_a_permutation_of_the_dense_columns():
    """5 experts of 8 columns are exactly 2 copies of 20."""
    model = dense()
    moe = upcycle(model, with_experts(model, num_experts=5), UNTOUCHED)
    for layer in (0, 2):
        dense_mlp, new = model.model.layers[layer].mlp, moe.model.layers[layer].mlp
        found = which(torch.cat([columns(e) for e in new.experts]), columns(dense_mlp))
        assert sorted(found) == sorted([*range(20)] * 2)
        assert sorted(found[:20]) == [*range(20)]
        assert found[:20] != sorted(found[:20]), "not shuffled"
        assert found[:20] != found[20:], "both copies are shuffled alike"


def test_two_whole_copies_compute_twice_the_dense_update():
    """Which they only do where the three matrices were shuffled together."""
    model = dense().double()
    moe = upcycle(model, with_experts(model, num_experts=5), UNTOUCHED)
    x_BTD = torch.randn(2, 7, 12, dtype=torch.float64)
    want = 2 * model.model.layers[0].mlp(x_BTD)
    got = sum(expert(x_BTD) for expert in moe.model.layers[0].mlp.experts)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_shared_expert_of_the_dense_width_computes_the_dense_update():
    model = dense().double()
    moe = upcycle(model, with_experts(model, shared_expert_intermediate_size=20))
    x_BTD = torch.randn(2, 7, 12, dtype=torch.float64)
    want = model.model.layers[2].mlp(x_BTD)
    got = moe.model.layers[2].mlp.shared_expert(x_BTD)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_57b_needs_nine_copies_and_only_cut_across_they_suffice():
    config = CONFIGS["qwen2-57b-a14b"]
    numbers = (config.intermediate_size, config.moe_intermediate_size, config.num_experts)
    for cut, most in (("across", 9), ("within", 10)):
        chosen = expert_columns(*numbers, rng(), cut)
        assert chosen.shape == (64, 2560)
        assert chosen.flatten().bincount(minlength=18944).max() == most
    # Within a copy, an expert has no column twice; across, the one at a seam may.
    assert all(len(row.unique()) == 2560 for row in chosen)


def test_an_expert_wider_than_the_dense_mlp_is_cut_across_only():
    assert expert_columns(20, 25, 2, rng()).flatten().bincount().max() == 3
    with pytest.raises(ValueError, match="25 columns can't be cut within a dense MLP of 20"):
        expert_columns(20, 25, 2, rng(), cut="within")


def test_half_of_each_experts_columns_start_anew_and_the_others_stay_whole():
    model = dense()
    moe = upcycle(model, with_experts(model))
    old = columns(model.model.layers[0].mlp)
    for expert in moe.model.layers[0].mlp.experts:
        found = which(columns(expert), old)
        assert found.count(-1) == 4
        fresh = columns(expert)[[n == -1 for n in found]]
        assert not torch.isin(fresh, old).any()


def test_single_numbers_can_start_anew_instead():
    model = dense()
    moe = upcycle(model, with_experts(model), Recipe(fresh="numbers"))
    kept = torch.isin(
        columns(moe.model.layers[0].mlp.experts[0]), columns(model.model.layers[0].mlp)
    )
    assert 0.4 < kept.float().mean() < 0.6
    assert not kept.all(dim=1).any()


@pytest.mark.parametrize(("std", "want"), [(None, 0.3), (0.02, 0.02)])
def test_what_is_new_has_the_asked_for_spread(std, want):
    model = dense()
    recipe = Recipe(fresh_share=1.0, fresh_std=std, shared_fresh_share=1.0)
    mlp = upcycle(model, with_experts(model), recipe).model.layers[0].mlp
    for new in (torch.cat([columns(expert) for expert in mlp.experts]), columns(mlp.shared_expert)):
        assert new.std().item() == pytest.approx(want, rel=0.1)
        assert abs(new.mean().item()) < want / 8


def test_everything_but_the_experts_stays():
    model = dense()
    before = {name: p.clone() for name, p in model.named_parameters()}
    moe = upcycle(model, with_experts(model))
    copied = {name for name, p in moe.named_parameters() if name in before}
    assert all(torch.equal(moe.get_parameter(name), before[name]) for name in copied)
    assert before.keys() - copied == {
        f"model.layers.{n}.mlp.{m}_proj.weight" for n in (0, 2) for m in ("gate", "up", "down")
    }
    with torch.no_grad():
        moe.get_parameter("model.norm.weight").zero_()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_router_and_the_shared_gate_start_as_in_a_new_model():
    model = dense()
    mlp = upcycle(model, with_experts(model, num_experts=40)).model.layers[0].mlp
    assert mlp.gate.weight.std().item() == pytest.approx(0.3, rel=0.1)
    assert mlp.shared_expert_gate.weight.abs().max() > 0


def test_the_seed_decides():
    model = dense()
    one, same, other = (upcycle(model, with_experts(model), seed=n) for n in (1, 1, 2))
    ids_BT = torch.arange(9)[None]
    assert torch.equal(one(ids_BT), same(ids_BT))
    assert not torch.allclose(one(ids_BT), other(ids_BT))
    assert one(ids_BT).isfinite().all()


def test_stacked_experts_get_the_same_weights():
    parts = Parts(moe=grouped_moe)
    looped, grouped = (upcycle(m, with_experts(m)) for m in (dense(), dense(parts)))
    ids_BT = torch.arange(9)[None]
    torch.testing.assert_close(grouped(ids_BT), looped(ids_BT), rtol=1e-5, atol=1e-5)


def test_the_dtype_stays():
    model = dense().bfloat16()
    moe = upcycle(model, with_experts(model))
    assert {p.dtype for p in moe.parameters()} == {torch.bfloat16}
    assert not any(p.is_meta for p in moe.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_experts": 0}, "got 0 experts in the model and 0 in the config"),
        ({"intermediate_size": 24}, "differs from the dense model's in more than its experts"),
    ],
)
def test_configs_that_do_not_belong_together(changes, says):
    model = dense()
    with pytest.raises(ValueError, match=says):
        upcycle(model, with_experts(model, **changes))


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"between 0 and 1; got 1\.5"):
        Recipe(fresh_share=1.5)
