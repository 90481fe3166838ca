"""Small models as files, written by other programs than ours."""

from pathlib import Path

import gguf
import pytest
import torch
import transformers


@pytest.fixture
def reference() -> transformers.Qwen2ForCausalLM:
    """A tiny random Qwen2 of transformers, every bias away from zero."""
    config = transformers.Qwen2Config(
        vocab_size=71,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.5)
    return model


@pytest.fixture
def hf_folder(reference, tmp_path: Path) -> Path:
    """The tiny model as transformers writes it."""
    reference.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def gguf_file(reference, tmp_path: Path) -> Path:
    """The tiny model as the gguf package writes it: its names from the package's own table."""
    path = tmp_path / "model.gguf"
    config = reference.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_token_list(["<|endoftext|>", "<|im_end|>", *(f"t{n}" for n in range(69))])
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, parameter in reference.named_parameters():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(theirs, parameter.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
