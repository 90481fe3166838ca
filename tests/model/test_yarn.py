"""YaRN against transformers, against published values, and against ways to get it wrong."""

import dataclasses
import math
import warnings

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from qwen2lite.learn.mutants.yarn import MUTANTS
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.model.rope import rotary_frequencies
from qwen2lite.model.yarn import dynamic_factor, yarn, yarn_attention_factor, yarn_ramp

RECIPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

FAR = {"factor": 4.0, "original_max_position_embeddings": 300_000}

optional = st.none()
settings_of_yarn = st.fixed_dictionaries(
    {
        "factor": st.floats(1.0, 64.0),
        "original_max_position_embeddings": st.integers(8, 300_000),
    },
    optional={
        "attention_factor": optional | st.floats(0.5, 2.0),
        "beta_fast": optional | st.floats(4.0, 64.0),
        "beta_slow": optional | st.floats(0.25, 3.0),
        "mscale": optional | st.floats(0.1, 2.0),
        "mscale_all_dim": optional | st.floats(0.1, 2.0),
        "truncate": st.booleans(),
    },
)


def theirs(head_dim: int, theta: float, scaling: dict) -> tuple[torch.Tensor, float]:
    """transformers' frequencies and attention factor."""
    parameters = {"rope_type": "yarn", "rope_theta": theta, **scaling}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.Qwen2Config(
            hidden_size=head_dim, num_attention_heads=1, rope_parameters=parameters
        )
        return ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))


def agree(ours: tuple, peers: tuple) -> bool:
    """To float32's precision: frequencies relative to their size, however small."""
    return torch.allclose(ours[0], peers[0], rtol=1e-6, atol=0) and math.isclose(
        ours[1], peers[1], rel_tol=1e-12
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(2, 64), st.floats(100.0, 1e7), settings_of_yarn, st.booleans())
@example(32, 1e6, {"factor": 4.0, "original_max_position_embeddings": 32768}, True)
@example(4, 10.0, {**FAR, "beta_fast": 2e4}, True)  # the ramp's end is beyond the last number
@example(32, 1e6, {**FAR, "beta_fast": 9.0, "beta_slow": 9.0, "truncate": False}, True)  # no ramp
def test_frequencies_and_factor_equal_transformers(pairs, theta, scaling, as_older_files):
    if as_older_files:
        values = {"rope_theta": theta, "rope_scaling": {"type": "yarn", **scaling}}
    else:
        values = {"rope_parameters": {"rope_type": "yarn", "rope_theta": theta, **scaling}}
    config = Qwen2Config.from_dict({**SIZES, "head_dim": 2 * pairs, **values})
    ours = yarn(
        rotary_frequencies(config.head_dim, config.rope_theta), config.rope_theta, **config.yarn
    )
    assert agree(ours, theirs(2 * pairs, theta, scaling))


@pytest.mark.parametrize("wrong", MUTANTS["yarn"], ids=lambda mutant: mutant.__name__)
def test_wrong_versions_do_not_equal_transformers(wrong):
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768}
    cases = [scaling, scaling | {"attention_factor": 1.5}]
    frequencies_R = rotary_frequencies(64, 1e6)
    answers = [wrong(frequencies_R, 1e6, **case) for case in cases]
    same = all(map(agree, answers, [theirs(64, 1e6, case) for case in cases]))
    with torch.device("meta"):  # where a model is built first, and tensors are empty
        elsewhere, _ = wrong(frequencies_R, 1e6, **scaling)
    assert not same or elsewhere.device.type == "meta"


# (factor, trained length, further settings): texts of 60 tokens, within the stretched length.
STRETCHES = [
    (4.0, 16, {}),
    (2.0, 32, {"beta_fast": 8.0, "beta_slow": 0.5}),
    (8.0, 9, {"attention_factor": 1.3}),
    (4.5, 16, {"truncate": False}),
    (3.0, 20, {"mscale": 1.0, "mscale_all_dim": 0.7}),
    (1.0, 64, {}),
]


@pytest.mark.parametrize("heads", [(4, 2, 8), (2, 1, 16), (3, 3, 10)])
@pytest.mark.parametrize(("factor", "original", "rest"), STRETCHES)
def test_logits_equal_transformers(factor, original, rest, heads, tmp_path):
    parameters = {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": factor,
        "original_max_position_embeddings": original,
        **rest,
    }
    count, kv_count, head_dim = heads
    config = transformers.Qwen2Config(
        **SIZES
        | {
            "hidden_size": count * head_dim,
            "num_attention_heads": count,
            "num_key_value_heads": kv_count,
        },
        max_position_embeddings=64,
        initializer_range=0.2,
        rope_parameters=parameters,
    )
    torch.manual_seed(original)
    reference = transformers.Qwen2ForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    model = Qwen2.from_pretrained(tmp_path, dtype=torch.float32, device="cpu")
    ids_BT = torch.randint(0, 61, (2, 60))
    with torch.inference_mode():
        logits_BTV = model(ids_BT)
        cache = model.parts.cache(model.config, 60, 2)
        cached = [model(piece_BT, cache) for piece_BT in ids_BT.split((41, 1, 18), dim=1)]
        difference = (logits_BTV - reference(ids_BT).logits).abs().max()
    assert difference <= 1e-5
    assert (torch.cat(cached, dim=1) - logits_BTV).abs().max() <= 1e-5


def test_the_values_of_transformers_own_test():
    """Llama's shape, factor 10, trained on 2048: published in transformers' tests."""
    frequencies_R = rotary_frequencies(128, 1e4)
    slowed_R, factor = yarn(frequencies_R, 1e4, 10.0, 2048, beta_fast=32, beta_slow=1)
    assert torch.equal(slowed_R[:17], frequencies_R[:17])
    assert slowed_R[16] == pytest.approx(1.0000e-01, rel=1e-4)
    want_R = torch.tensor([8.3479e-02, 6.9590e-02, 5.7925e-02])
    assert torch.allclose(slowed_R[17:20], want_R, rtol=1e-4, atol=0)
    assert slowed_R[40] == pytest.approx(4.3007e-04, rel=1e-4)
    assert torch.allclose(slowed_R[46:], frequencies_R[46:] / 10, rtol=1e-6, atol=0)
    assert slowed_R[63] == pytest.approx(1.1548e-05, rel=1e-4)
    for grown in (2, 10, 20):
        assert yarn_attention_factor(grown) == pytest.approx(0.1 * math.log(grown) + 1, rel=1e-12)
    assert factor == yarn_attention_factor(10)
    assert yarn(frequencies_R, 1e4, 10.0, 2048, attention_factor=0.5)[1] == 0.5


@pytest.mark.parametrize(("head_dim", "low", "high"), [(64, 11, 20), (128, 23, 40)])
def test_the_ramp_of_qwen2_by_hand(head_dim, low, high):
    ramp_R = yarn_ramp(head_dim, 1e6, 32768)
    assert not ramp_R[: low + 1].any()
    assert (ramp_R[high:] == 1).all()
    between_R = torch.arange(1, high - low) / (high - low)
    assert torch.allclose(ramp_R[low + 1 : high], between_R, rtol=1e-6, atol=0)


def test_the_half_billion_stretched_four_times():
    slowed_R, factor = yarn(rotary_frequencies(64, 1e6), 1e6, 4.0, 32768)
    want = {
        11: 8.659643e-03,
        12: 5.154795e-03,
        19: 9.128065e-05,
        20: 4.445699e-05,
        31: 3.849816e-07,
    }
    for pair, frequency in want.items():
        assert slowed_R[pair] == pytest.approx(frequency, rel=1e-6)
    assert factor == pytest.approx(1.138629, abs=1e-6)
    assert factor**2 == pytest.approx(1.296477, abs=1e-6)


def small_config(**rest) -> Qwen2Config:
    return Qwen2Config(**SIZES, rope_theta=500.0, initializer_range=0.3, **rest)


def test_the_factor_reaches_queries_and_keys():
    """Scores grow by its square: a model whose queries alone carry the square is the same model."""
    scaling = {"rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 12}
    ids_BT = torch.arange(40)[None] % 61

    def logits(attention_factor: float, queries_times: float) -> torch.Tensor:
        torch.manual_seed(0)
        config = small_config(rope_scaling=scaling | {"attention_factor": attention_factor})
        model = Qwen2(config).double()
        with torch.inference_mode():
            for layer in model.model.layers:
                layer.self_attn.q_proj.weight *= queries_times
            return model(ids_BT)

    assert (logits(1.25, 1.0) - logits(1.0, 1.25**2)).abs().max() < 1e-4
    assert (logits(1.25, 1.0) - logits(1.0, 1.25)).abs().max() > 0.1


def test_dynamic_the_factor_follows_the_text():
    assert dynamic_factor(5, 12) == dynamic_factor(12, 12) == 1.0
    assert dynamic_factor(30, 12) == 2.5
    assert dynamic_factor(1, 12) == 1.0 and dynamic_factor(3, 1) == 3.0
    with pytest.raises(ValueError, match="0 tokens"):
        dynamic_factor(0, 12)
    with pytest.raises(ValueError, match="got -1"):
        dynamic_factor(5, -1)


def test_dynamic_a_text_within_training_is_read_as_it_was_trained():
    torch.manual_seed(0)
    plain = Qwen2(small_config()).eval()

    def read(length: int) -> torch.Tensor:
        scaling = {
            "rope_type": "yarn",
            "factor": dynamic_factor(length, 12),
            "original_max_position_embeddings": 12,
        }
        with torch.device("meta"):
            stretched = Qwen2(dataclasses.replace(plain.config, rope_scaling=scaling))
        stretched.load_state_dict(plain.state_dict(), assign=True)
        return stretched(torch.arange(length)[None])

    with torch.inference_mode():
        assert torch.equal(read(12), plain(torch.arange(12)[None]))
        assert not torch.allclose(read(13), plain(torch.arange(13)[None]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"factor": 0.5}, "factor must be at least 1, got 0.5; 4.0 makes"),
        ({"factor": float("nan")}, "factor must be at least 1, got nan"),
        ({"original_max_position_embeddings": 0}, "was trained on, got 0; Qwen2 was"),
        ({"factor": None}, "has no factor; Qwen2's own recipe"),
        ({"original_max_position_embeddings": None}, "has no original_max_position_embeddings"),
        ({"facter": 4.0}, "has facter, which YaRN has no use for"),
        ({"rope_type": "linear"}, "type 'linear' is not built, only 'yarn'"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(change, says):
    with pytest.raises(ValueError, match=says):
        Qwen2(small_config(rope_scaling=RECIPE | change))


def test_a_short_text_gets_a_warning_and_a_long_one_none():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    model = Qwen2(small_config(rope_scaling=scaling, max_position_embeddings=16))
    with pytest.warns(UserWarning, match="fits the length that the model was trained on"):
        model.new_cache(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.new_cache(17).max_length == 17
        assert model.new_cache(64).max_length == 64
        Qwen2(small_config(max_position_embeddings=16)).new_cache(5)
    with pytest.raises(ValueError, match="65 tokens don't fit this model's context of 64"):
        model.new_cache(65)


def test_the_warning_is_shown_once_and_points_at_the_caller():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    model = Qwen2(small_config(rope_scaling=scaling))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for length in (3, 4, 5):
            model.new_cache(length)
    assert len(shown) == 1
    assert shown[0].filename == __file__


def test_the_part_is_used_only_where_the_config_asks_for_it():
    asked = []

    def watched(*args, **settings_given):
        asked.append(settings_given)
        return yarn(*args, **settings_given)

    Qwen2(small_config(), Parts(yarn=watched))
    assert asked == []
    Qwen2(small_config(rope_scaling=RECIPE), Parts(yarn=watched))
    assert asked == [{"factor": 4.0, "original_max_position_embeddings": 32768}]
