"""Configs: exact sizes of the published models, both spellings of RoPE's keys, clear refusals."""

import json
import math

import pytest
import torch

from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.qwen2 import Qwen2

SMALL = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# Computed from the published config.json files, layer by layer.
PARAMETERS = {
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen2-57b-a14b": 57_408_658_944,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_models_have_exactly_their_parameters(name):
    with torch.device("meta"):
        model = Qwen2(CONFIGS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_models_have_what_no_count_shows(name):
    config = CONFIGS[name]
    assert (config.max_position_embeddings, config.rope_theta) == (131072, 1e6)
    assert (config.eos_token_id, config.initializer_range) == (151643, 0.02)
    assert config.rms_norm_eps == (1e-5 if name == "qwen2-72b" else 1e-6)
    if config.num_experts:
        assert config.num_experts_per_tok == 8 and not config.norm_topk_prob


def test_unknown_keys_are_left_out_and_both_spellings_of_rope_are_read():
    old = Qwen2Config.from_dict({**SMALL, "rope_theta": 5e5, "rope_scaling": None, "x": 1})
    new = Qwen2Config.from_dict(
        {**SMALL, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    )
    assert old == new
    assert old.rope_theta == 5e5
    assert old.head_dim == 8


def test_every_third_layer_is_sparse_and_a_dense_file_has_no_experts():
    moe = {"model_type": "qwen2_moe", "num_experts": 8, "num_hidden_layers": 7}
    sparse = Qwen2Config.from_dict({**SMALL, **moe, "decoder_sparse_step": 3})
    assert [layer for layer in range(7) if sparse.is_sparse(layer)] == [2, 5]
    dense = Qwen2Config.from_dict({**SMALL, **moe, "model_type": "qwen2"})
    assert not any(map(dense.is_sparse, range(7)))
    assert "num_experts" not in dense.to_dict()


def test_to_dict_is_read_back_as_the_same_config(tmp_path):
    for config in (Qwen2Config(**SMALL), Qwen2Config(**SMALL, num_experts=8, mlp_only_layers=(1,))):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
        assert Qwen2Config.from_json(path) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": "32"}, "hidden_size must be a whole number from 1 on, got '32'"),
        ({"hidden_size": 32.0}, "hidden_size must be a whole number"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be a whole number from 1 on, got 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be"),
        ({"rope_theta": -1.0}, "rope_theta must be above 0, got -1.0"),
        ({"rope_theta": 0.0}, "rope_theta must be above 0, got 0.0"),
        ({"rope_theta": "big"}, "rope_theta must be above 0, got 'big'"),
        ({"rope_theta": math.inf}, "rope_theta must be above 0, got inf"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be above 0, got '1e-6'"),
        ({"initializer_range": -1.0}, "initializer_range must be above 0, got -1.0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ({"mlp_only_layers": 3}, "mlp_only_layers must be a list, got 3"),
        (
            {"model_type": "qwen2_moe", "num_experts": 8, "shared_expert_intermediate_size": 0},
            "shared_expert_intermediate_size must be a whole number from 1 on, got 0",
        ),
        (
            {"model_type": "qwen2_moe", "num_experts": 8, "decoder_sparse_step": 0},
            "decoder_sparse_step must be",
        ),
        (
            {"model_type": "qwen2_moe", "num_experts": 4},
            "num_experts_per_tok is 8, and there are only 4 experts",
        ),
        ({"num_attention_heads": 5}, "does not divide into 5 heads"),
        ({"num_key_value_heads": 3}, "can't share 3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"model_type": "llama"}, "'llama'"),
        ({"hidden_size": None}, "no hidden_size"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(change, says):
    with pytest.raises(ValueError, match=says):
        Qwen2Config.from_dict({**SMALL, **change})


def test_a_broken_config_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        Qwen2Config.from_json(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="should hold a JSON object, not a list"):
        Qwen2Config.from_json(path)


def test_a_recipe_that_was_added_counts_beside_the_newer_spelling():
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    given = {**SMALL, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    config = Qwen2Config.from_dict({**given, "rope_scaling": scaling})
    assert config.yarn["factor"] == 4.0 and config.rope_theta == 5e5
    with pytest.raises(ValueError, match="'yarn', and a table was wanted"):
        Qwen2Config.from_dict({**SMALL, "rope_scaling": "yarn"})
