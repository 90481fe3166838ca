"""Mixture of experts against transformers, against numbers by hand, and against itself."""

import random

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.grouped import GroupedExperts, grouped_moe
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.moe import Experts, MixtureOfExperts, route
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.weights.export import export
from qwen2lite.weights.published import published_parts, published_tensors

GROUPED = Parts(moe=grouped_moe)
# PyTorch's grouped product has no float64.
FORMS = [(Experts, torch.float64, 1e-12), (GroupedExperts, torch.float32, 2e-6)]


def their_config(seed: int) -> transformers.Qwen2MoeConfig:
    """Any shape, either normalisation, sparse layers anywhere."""
    pick = random.Random(seed)
    heads = pick.choice([2, 4, 6])
    layers, experts = pick.randint(1, 4), pick.randint(2, 9)
    return transformers.Qwen2MoeConfig(
        vocab_size=99,
        hidden_size=heads * pick.choice([4, 8]),
        intermediate_size=pick.randint(9, 40),
        moe_intermediate_size=pick.choice([4, 8, 12, 20]),
        shared_expert_intermediate_size=pick.randint(3, 30),
        num_experts=experts,
        num_experts_per_tok=pick.randint(1, experts),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pick.choice([1, 2, heads]),
        max_position_embeddings=64,
        norm_topk_prob=seed % 2 == 0,
        decoder_sparse_step=pick.choice([1, 1, 2]),
        mlp_only_layers=pick.choice([[], [0], [layers - 1]]) if layers > 1 else [],
        tie_word_embeddings=pick.choice([True, False]),
        initializer_range=0.15,
    )


def theirs(config: transformers.Qwen2MoeConfig, seed: int = 0) -> transformers.Qwen2MoeForCausalLM:
    torch.manual_seed(seed)
    model = transformers.Qwen2MoeForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:  # transformers starts them at zero, which would hide a forgotten bias
            nn.init.normal_(parameter, std=0.5)
    return model


def load(folder, parts: Parts | None = None) -> Qwen2:
    return Qwen2.from_pretrained(folder, dtype=torch.float32, device="cpu", parts=parts)


@pytest.mark.parametrize("seed", range(24))
def test_logits_equal_transformers_in_either_file_format_and_form(seed, tmp_path):
    reference = theirs(their_config(seed), seed)
    # For half of the seeds the file holds the experts stacked, as transformers 5 has them in memory.
    reference.save_pretrained(tmp_path, save_original_format=seed % 4 < 2)
    ids_BT = torch.randint(0, 99, (3, 13), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        want = reference(ids_BT).logits
        for parts in (None, GROUPED):
            assert (load(tmp_path, parts)(ids_BT) - want).abs().max() <= 1e-5


def test_the_random_configs_cover_every_option():
    configs = [their_config(seed) for seed in range(24)]
    for name in ("norm_topk_prob", "decoder_sparse_step", "tie_word_embeddings"):
        assert len({getattr(config, name) for config in configs}) == 2, name
    assert {len(config.mlp_only_layers) for config in configs} == {0, 1}
    assert any(config.num_experts_per_tok == config.num_experts for config in configs)


def shape(experts: int = 6, used: int = 2, norm: bool = False) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=10,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=experts,
        num_experts_per_tok=used,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=5,
        norm_topk_prob=norm,
        initializer_range=0.3,
    )


def layer(config: Qwen2Config, experts=Experts, seed: int = 0) -> MixtureOfExperts:
    """The same weights in either form."""
    torch.manual_seed(seed)
    looped = MixtureOfExperts(config, SwiGLU, route)
    if experts is Experts:
        return looped
    grouped = MixtureOfExperts(config, SwiGLU, route, GroupedExperts)
    own, stacked = (published_tensors(nn.ModuleDict({"mlp": moe})) for moe in (looped, grouped))
    for name, weight in stacked.items():
        weight.copy_(own[name])
    return grouped


@pytest.mark.parametrize(("norm", "want"), [(False, [0.6, 0.3]), (True, [2 / 3, 1 / 3])])
def test_route_by_hand(norm, want):
    """Probabilities 0.1, 0.6, 0.3: the best two are experts 1 and 2."""
    logits_XE = torch.tensor([[0.1, 0.6, 0.3]]).log() + 5
    weights, chosen = route(logits_XE, 2, norm)
    assert chosen.tolist() == [[1, 2]]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([want]), rtol=1e-6, atol=0)


def test_route_is_float32_also_for_half_precision_scores():
    logits_XE = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    weights, chosen = route(logits_XE, 3, False)
    want, want_chosen = route(logits_XE.float(), 3, False)
    assert torch.equal(weights, want)
    assert torch.equal(chosen, want_chosen)


@pytest.mark.parametrize(("experts", "dtype", "tolerance"), FORMS)
@pytest.mark.parametrize("norm", [False, True])
def test_no_token_is_dropped_when_all_choose_the_same_experts(experts, dtype, tolerance, norm):
    moe = layer(shape(norm=norm), experts).to(dtype)
    with torch.no_grad():
        moe.gate.weight.zero_()  # a tie, which topk resolves alike for every token
    x_BTD = torch.randn(2, 30, 16, dtype=dtype)
    together = moe(x_BTD)
    alone = torch.cat([moe(x_BTD[b : b + 1, t : t + 1]) for b in range(2) for t in range(30)])
    assert (together - alone.view_as(together)).abs().max() <= tolerance


@pytest.mark.parametrize("experts", [Experts, GroupedExperts])
def test_the_formula(experts):
    """Every expert on every token, weighted: slow and plain."""
    moe, plain = layer(shape(norm=True), experts), layer(shape(norm=True))
    x_BTD = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0))
    probabilities = plain.gate(x_BTD).softmax(-1)
    kept = probabilities.where(probabilities >= probabilities.topk(2).values[..., -1:], 0.0)
    weights = kept / kept.sum(-1, keepdim=True)
    want = sum(weights[..., e, None] * expert(x_BTD) for e, expert in enumerate(plain.experts))
    want = want + plain.shared_expert_gate(x_BTD).sigmoid() * plain.shared_expert(x_BTD)
    assert (moe(x_BTD) - want).abs().max() <= 2e-6


class Counting(SwiGLU):
    """An expert that says how many tokens it was given."""

    rows: list[int]

    def forward(self, x_BTD):
        self.rows = [*getattr(self, "rows", []), x_BTD.shape[1]]
        return super().forward(x_BTD)


def test_each_used_expert_runs_once_and_an_unused_one_not_at_all():
    torch.manual_seed(0)
    moe = MixtureOfExperts(shape(), Counting, route)
    with torch.no_grad():
        moe.gate.weight[4:] = -moe.gate.weight[:1]
        moe.gate.weight[:4] = moe.gate.weight[:1]
    x_BTD = moe.gate.weight[:1].detach().expand(9, 16)[None]  # experts 4 and 5 score lowest
    moe(x_BTD).sum().backward()
    ran = {e: expert.rows for e, expert in enumerate(moe.experts) if hasattr(expert, "rows")}
    assert sum(sum(rows) for rows in ran.values()) == 9 * 2
    assert all(len(rows) == 1 for rows in ran.values())
    for e, expert in enumerate(moe.experts):
        gradients = [parameter.grad for parameter in expert.parameters()]
        assert all(g is None for g in gradients) == (e not in ran)
    assert not {4, 5} & ran.keys()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), tokens=st.integers(1, 12), used=st.integers(1, 6))
def test_the_order_of_the_tokens_does_not_matter(data, tokens, used):
    order = torch.tensor(data.draw(st.permutations(range(tokens))))
    seeded = torch.Generator().manual_seed(tokens)
    for experts, dtype, tolerance in FORMS:
        moe = layer(shape(used=used), experts).to(dtype)
        x_BTD = torch.randn(1, tokens, 16, generator=seeded).to(dtype)
        with torch.inference_mode():
            difference = moe(x_BTD[:, order]) - moe(x_BTD)[:, order]
        assert difference.abs().max() <= tolerance


@pytest.mark.parametrize("parts", [None, GROUPED], ids=["loop", "grouped"])
def test_gradients_equal_transformers(parts, tmp_path):
    reference = theirs(their_config(3), 3)
    reference.save_pretrained(tmp_path)
    model = load(tmp_path, parts)
    ids_BT = torch.randint(0, 99, (2, 11), generator=torch.Generator().manual_seed(0))
    for one in (reference, model):
        logits_BTV = one(ids_BT)
        logits_BTV = getattr(logits_BTV, "logits", logits_BTV)
        nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT.flatten()).backward()
    want = published_gradients(reference)
    got = published_gradients(model)
    assert got.keys() == want.keys()
    assert any(".experts." in name for name in got)
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("experts", [Experts, GroupedExperts])
def test_a_layer_in_bfloat16_stays_in_it(experts):
    moe = layer(shape(norm=True), experts).bfloat16()
    assert moe(torch.randn(2, 30, 16).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("experts", [Experts, GroupedExperts])
def test_under_autocast_products_are_bfloat16_and_gradients_float32(experts):
    moe = layer(shape(norm=True), experts)
    x_BTD = torch.randn(2, 30, 16)
    found = []
    for narrow in (False, True):
        moe.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            mixed_BTD = moe(x_BTD)
        mixed_BTD.float().square().sum().backward()
        found.append([mixed_BTD.float(), *(weight.grad for weight in moe.parameters())])
    for exact, rounded in zip(*found, strict=True):
        # Eight bits of mantissa, and a few roundings one after the other.
        assert 5e-4 * exact.norm() <= (rounded - exact).norm() <= 0.02 * exact.norm()
        assert rounded.dtype == torch.float32


def published_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        part: torch.zeros_like(p)[index] if p.grad is None else p.grad[index]
        for name, p in model.named_parameters()
        for part, index in published_parts(name, tuple(p.shape)).items()
    }


@pytest.mark.parametrize("parts", [None, GROUPED], ids=["loop", "grouped"])
@pytest.mark.parametrize("shard_bytes", [10**9, 3000])
def test_an_export_has_the_published_names_and_transformers_reads_it(parts, shard_bytes, tmp_path):
    torch.manual_seed(0)
    model = Qwen2(shape(), parts).eval()
    folder = export(model, tmp_path / "out", max_shard_bytes=shard_bytes)
    stored = {}
    for file in folder.glob("*.safetensors"):
        stored |= load_file(file)
    assert stored["model.layers.1.mlp.experts.5.gate_proj.weight"].shape == (8, 16)
    assert not any(name.endswith("gate_up_proj") for name in stored)
    back, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    ids_BT = torch.arange(9)[None]
    with torch.inference_mode():
        want = model(ids_BT)
        assert (back.eval()(ids_BT).logits - want).abs().max() <= 1e-5
        for other in (None, GROUPED):
            assert (load(folder, other)(ids_BT) - want).abs().max() <= 1e-5


@pytest.mark.parametrize("parts", [None, GROUPED], ids=["loop", "grouped"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ('"moe_intermediate_size": 8', '"moe_intermediate_size": 16'),
            r"gate_proj.*wants \[16, 16\]",
        ),
        (('"num_experts": 5', '"num_experts": 6'), r"mlp\.gate\.weight.*wants \[6, 16\]"),
    ],
)
def test_experts_of_another_number_or_width_are_refused(change, says, parts, tmp_path):
    path = export(Qwen2(shape(experts=5)), tmp_path / "out") / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load(path.parent, parts)


@pytest.mark.parametrize("parts", [None, GROUPED], ids=["loop", "grouped"])
def test_a_missing_expert_is_named(parts, tmp_path):
    path = export(Qwen2(shape(experts=5)), tmp_path / "out") / "model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if "1.mlp.experts.4.down" not in name}
    path.unlink()
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"has no model\.layers\.1\.mlp\.experts\.4\.down_proj"):
        load(path.parent, parts)


@pytest.mark.parametrize("parts", [None, GROUPED], ids=["loop", "grouped"])
def test_new_experts_start_as_small_as_every_matrix(parts):
    torch.manual_seed(0)
    model = Qwen2(shape(), parts)
    for name, weight in model.named_parameters():
        if ".experts." in name:
            assert weight.std().item() == pytest.approx(shape().initializer_range, rel=0.2), name


def test_a_learners_mlp_is_every_expert():
    model = Qwen2(shape(), Parts(mlp=Counting))
    model(torch.arange(7)[None])
    moe = model.model.layers[0].mlp
    assert sum(sum(getattr(expert, "rows", [])) for expert in moe.experts) == 7 * 2
    assert moe.shared_expert.rows == [7]
