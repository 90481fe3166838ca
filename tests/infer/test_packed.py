"""The packed model against the plain one in float32, on the same bfloat16 weights."""

from dataclasses import replace

import pytest
import torch

from qwen2lite import CONFIGS, Parts, Qwen2
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedLinear, PackedQwen2, pack
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.weights.sources import default_model

SHAPE = {
    "vocab_size": 97, "hidden_size": 40, "intermediate_size": 88, "num_hidden_layers": 3,
    "num_attention_heads": 5, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip

needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="not checked: this processor's PyTorch has no FBGEMM, and packs nothing",
)


def narrow_model(**changes) -> Qwen2:
    torch.manual_seed(0)
    config = replace(CONFIGS["qwen2-0.5b"], **{**SHAPE, "initializer_range": 0.2, **changes})
    return Qwen2(config).to(torch.bfloat16).eval()


def in_float32(model: Qwen2) -> Qwen2:
    wide = Qwen2(model.config)
    wide.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    return wide.eval()


@needs_fbgemm
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 5}, {"num_hidden_layers": 1}],
)
def test_logits_are_those_of_float32(changes):
    model = narrow_model(**changes)
    packed = pack(model)
    assert isinstance(packed, PackedQwen2)
    ids_BT = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids_BT), in_float32(model)(ids_BT), atol=2e-5, rtol=0)


@needs_fbgemm
@pytest.mark.parametrize("cut", [1, 7, 22])
def test_any_split_gives_the_same_logits(cut):
    packed = pack(narrow_model())
    ids_BT = torch.arange(23)[None]
    with torch.inference_mode():
        cache = packed.new_cache(23)
        pieces = [packed(ids_BT[:, :cut], cache)]
        pieces += [packed(ids_BT[:, t : t + 1], cache) for t in range(cut, 23)]
        torch.testing.assert_close(torch.cat(pieces, 1), packed(ids_BT), atol=2e-5, rtol=0)


@needs_fbgemm
def test_it_generates_the_tokens_of_float32():
    model = narrow_model()
    expected = list(generate_ids(in_float32(model), [1, 2, 3], max_new_tokens=40))
    assert list(generate_ids(pack(model), [1, 2, 3], max_new_tokens=40)) == expected


@needs_fbgemm
def test_packing_changes_no_weight_between_the_limits():
    exponents = torch.arange(-14, 16).float()
    weight = (1 + torch.arange(128) / 128)[:, None] * 2.0**exponents
    product = PackedLinear(weight.bfloat16())(torch.eye(30))
    assert torch.equal(product.T, weight)


@needs_fbgemm
def test_small_weights_are_off_by_at_most_half_a_step():
    weight = torch.linspace(-6e-5, 6e-5, 999)[:, None].bfloat16()
    product = PackedLinear(weight)(torch.ones(1, 1))
    assert (product.T - weight.float()).abs().max() <= 2.0**-25


@needs_fbgemm
def test_a_weight_beyond_float16_is_refused():
    model = narrow_model()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = 70_000
    with pytest.raises(
        ValueError, match="a weight of 70144 can't be packed: float16 ends at 65504"
    ):
        pack(model)


class OwnMLP(SwiGLU):
    """As a learner writes one."""


@pytest.mark.parametrize(
    "model",
    [
        narrow_model().float(),
        Qwen2(narrow_model().config, Parts(mlp=OwnMLP)).to(torch.bfloat16),
        narrow_model(num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=24),
    ],
    ids=["float32", "the learner's part", "experts"],
)
def test_other_models_come_back_as_they_are(model):
    assert pack(model) is model


@needs_fbgemm
@pytest.mark.real
def test_the_real_model_packed_is_as_near_as_float32(real_tokenizer):
    model = Qwen2.from_pretrained(default_model(), dtype=torch.bfloat16, device="cpu")
    packed, wide = pack(model), in_float32(model)
    ids_BT = torch.tensor([real_tokenizer.encode("def fibonacci(n):\n    if n < 2:\n")])
    with torch.inference_mode():
        difference = (packed(ids_BT) - wide(ids_BT)).abs().max()
    print(f"max difference {difference:.1e}")
    assert difference <= 2e-3
