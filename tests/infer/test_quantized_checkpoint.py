"""A quantised model is made once, found again, and made anew where what it was made from changed."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError

from qwen2lite import CONFIGS, Qwen2
from qwen2lite.infer import quantized_checkpoint
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.quantize import (
    dequantize_int4,
    dequantize_int8,
    quantize_int4,
    quantize_int8,
)
from qwen2lite.infer.quantized_checkpoint import load_quantized, quantized_path
from qwen2lite.weights.export import export

SHAPE = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip

ROUNDED = {
    "int8": lambda weight: dequantize_int8(*quantize_int8(weight)),
    "int4": lambda weight: dequantize_int4(*quantize_int4(weight)),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "cache"))
    return exported(tmp_path / "model")


def exported(folder, **changes):
    torch.manual_seed(0)
    config = replace(CONFIGS["qwen2-0.5b"], **{**SHAPE, "initializer_range": 0.2, **changes})
    return export(Qwen2(config).to(torch.bfloat16), folder)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_the_second_load_reads_what_the_first_made(folder, bits, monkeypatch):
    made = load_quantized(folder, bits)
    monkeypatch.setattr(Qwen2, "from_pretrained", None)  # the second time nothing is loaded
    found = load_quantized(folder, bits)
    ids_BT = torch.arange(23)[None]
    with torch.inference_mode():
        assert torch.equal(made(ids_BT), found(ids_BT))
    prompt = [1, 2, 3]
    assert list(generate_ids(made, prompt, 20)) == list(generate_ids(found, prompt, 20))


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_logits_are_those_of_the_rounded_weights(folder, bits):
    ids_BT = torch.arange(23)[None]
    plain = Qwen2.from_pretrained(folder, torch.bfloat16, "cpu")
    rounded = with_rounded_weights(plain, bits)
    with torch.inference_mode():
        right = rounded(ids_BT)
        narrow = (rounded.bfloat16()(ids_BT) - right).square().mean().sqrt()
        off = (load_quantized(folder, bits)(ids_BT) - right).square().mean().sqrt()
    assert off <= narrow


def with_rounded_weights(model: Qwen2, bits: str) -> Qwen2:
    """In float32. The embedding stays as it is, and the tied output layer is rounded."""
    wide = Qwen2(replace(model.config, tie_word_embeddings=False)).eval()
    state = model.state_dict() | {"lm_head.weight": model.output_weight_VD.detach()}
    for name, weight in state.items():
        if weight.ndim == 2 and "embed" not in name:
            state[name] = ROUNDED[bits](weight)
    wide.load_state_dict({name: weight.float() for name, weight in state.items()})
    return wide


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_mapped_tensors_begin_with_a_cache_line(folder, bits):
    load_quantized(folder, bits)
    found = load_quantized(folder, bits)
    assert {tensor.data_ptr() % 64 for tensor in found.state_dict().values()} == {0}


def test_changed_weights_are_quantised_anew(folder):
    before = quantized_path(folder, "int4")
    load_quantized(folder, "int4")
    os.utime(folder / "model.safetensors", (1, 1))
    assert quantized_path(folder, "int4") != before


def test_a_damaged_copy_is_made_anew(folder):
    load_quantized(folder, "int4")
    path = quantized_path(folder, "int4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    load_quantized(folder, "int4")
    assert path.read_bytes() == whole


def test_a_full_disk_costs_only_the_copy(folder, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(quantized_checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match=r"couldn't be kept in .*No space left.*made anew"):
        model = load_quantized(folder, "int8")
    assert list(generate_ids(model, [1, 2, 3], 5))
    assert not list(quantized_path(folder, "int8").parent.iterdir())


def test_what_cannot_be_quantised_says_why(tmp_path, folder):
    with pytest.raises(ValueError, match="quantised to int8 or int4, not to 'int2'"):
        load_quantized(folder, "int2")
    experts = {"num_experts": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24}
    with pytest.raises(ValueError, match="only models of dense layers with plain attention"):
        load_quantized(exported(tmp_path / "experts", **experts), "int8")


def test_another_config_in_the_folder_is_another_model(folder):
    load_quantized(folder, "int8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recipe = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": recipe}), "utf-8")
    assert load_quantized(folder, "int8").config.context_length == 256


def test_a_full_disk_costs_time_and_no_answer(folder, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(quantized_checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match="couldn't be kept.*No space left"):
        assert load_quantized(folder, "int8").config.vocab_size == SHAPE["vocab_size"]
