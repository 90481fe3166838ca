"""Reading a .gguf file: what stands in a good one, and one clear sentence for every damaged one."""

import struct
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite import Qwen2
from qwen2lite.weights.checkpoint import open_checkpoint
from qwen2lite.weights.gguf import read_directory, read_metadata
from qwen2lite.weights.gguf_checkpoint import GGUFCheckpoint, config_from, hf_name


def test_metadata_of_every_type_is_read(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    wanted = {
        "uint8": 255, "int8": -128, "uint16": 65535, "int16": -32768, "uint32": 2**32 - 1,
        "int32": -(2**31), "uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.15625,
        "float64": 0.1, "bool": True, "string": "héllo 中文 🎉", "array": [-3, 0, 2**31 - 1],
    }  # fmt: skip
    for kind, value in wanted.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_array("a.strings", ["", "ab", "ü"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    metadata = read_metadata(path)
    for kind, value in wanted.items():
        assert metadata[f"a.{kind}"] == value, kind
        assert type(metadata[f"a.{kind}"]) is type(value)
    assert metadata["a.strings"] == ["", "ab", "ü"]


def test_a_gguf_gives_the_logits_of_the_model_it_was_written_from(gguf_file, reference):
    model = Qwen2.from_pretrained(gguf_file, dtype=torch.float32, device="cpu")
    ids_BT = torch.randint(0, 71, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (model(ids_BT) - reference(ids_BT).logits).abs().max() <= 1e-5


def test_a_gguf_loads_inside_inference_mode(gguf_file, reference):
    with torch.inference_mode(), open_checkpoint(gguf_file) as checkpoint:
        read = checkpoint.tensor("model.norm.weight", torch.float32)
    assert torch.equal(read, reference.model.norm.weight)


def test_config_comes_from_the_metadata(gguf_file, reference):
    with open_checkpoint(gguf_file) as checkpoint:
        config = checkpoint.config
        assert checkpoint.generation_config == {"eos_token_id": [1, 0]}
    for key in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
    ):  # fmt: skip
        assert config[key] == getattr(reference.config, key), key
    assert config["rope_theta"] == reference.config.rope_parameters["rope_theta"]
    assert config["tie_word_embeddings"] is True


def test_tensors_outlive_the_checkpoint_and_take_the_wanted_dtype(gguf_file, reference):
    wanted = reference.model.layers[1].mlp.up_proj.weight.detach()
    with open_checkpoint(gguf_file) as checkpoint:
        got = checkpoint.tensor("model.layers.1.mlp.up_proj.weight", torch.bfloat16)
    gguf_file.unlink()
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted.bfloat16())


def test_tensors_of_many_chunks_are_put_together_in_order(gguf_file, monkeypatch):
    with open_checkpoint(gguf_file) as checkpoint:
        whole = checkpoint.tensor("model.embed_tokens.weight", torch.float32)
        monkeypatch.setattr("qwen2lite.weights.gguf_checkpoint._CHUNK", 256)
        assert torch.equal(checkpoint.tensor("model.embed_tokens.weight", torch.float32), whole)


def test_chunks_of_blocks_are_put_together_in_order(tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((24, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quantize(values, kind)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "qwen2")
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setattr("qwen2lite.weights.gguf_checkpoint._CHUNK", 256)
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        read = checkpoint.tensor("model.embed_tokens.weight", torch.float32)
    assert np.array_equal(read.numpy(), gguf.dequantize(blocks, kind))


def test_a_file_that_comes_in_pieces_is_read_whole_and_closed(gguf_file, reference):
    """As the system gives more than 2 GB."""
    with GGUFCheckpoint(gguf_file) as checkpoint:
        file = checkpoint._file
        pieces = SimpleNamespace(
            seek=file.seek, readinto=lambda into: file.readinto(into[:7]), close=file.close
        )
        checkpoint._file = pieces
        read = checkpoint.tensor("model.norm.weight", torch.float32)
    assert torch.equal(read, reference.model.norm.weight)
    assert file.closed


def test_reading_leaves_pytorch_its_threads(gguf_file):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with open_checkpoint(gguf_file) as checkpoint:
            checkpoint.tensor("model.norm.weight", torch.float32)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["blk.0.attn_sinks.weight", "enc.0.attn_q.weight"])
def test_a_name_that_no_qwen2_has_stays(name):
    assert hf_name(name) == name


def test_names_are_those_of_the_gguf_packages_table():
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 30)
    with torch.device("meta"):
        from qwen2lite.model.config import CONFIGS

        names = [name for name, _ in Qwen2(CONFIGS["qwen2-7b"]).named_parameters()]
    assert len(names) == 339
    for name in names:
        assert hf_name(table.get_name(name, try_suffixes=(".weight", ".bias"))) == name


def test_cut_at_any_place_it_is_refused(gguf_file, tmp_path):
    data = gguf_file.read_bytes()
    start = min(info.start for info in read_directory(gguf_file)[1].values())
    cut_file = tmp_path / "cut.gguf"
    for length in [*range(0, start, 5), *range(start, len(data), 3001), len(data) - 1]:
        cut_file.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.gguf is truncated"):
            read_directory(cut_file)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_gives_a_checkpoint_or_a_sentence(data, tmp_path_factory):
    """Whatever the damage says, no other exception and no huge allocation comes of it."""
    path = _directory_only(tmp_path_factory)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    damaged = path.with_name("damaged.gguf")
    damaged.write_bytes(whole)
    try:
        metadata, tensors = read_directory(damaged)
        config_from(metadata, {hf_name(name): info for name, info in tensors.items()}, damaged)
    except ValueError as error:
        assert "damaged.gguf" in str(error), error


_MADE = []


def _directory_only(tmp_path_factory):
    """A file of which nearly every byte means something."""
    if not _MADE:
        path = tmp_path_factory.mktemp("flipped") / "small.gguf"
        writer = gguf.GGUFWriter(path, "qwen2")
        writer.add_block_count(1)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_token_list(["a", "bb", "<|im_end|>"])
        writer.add_eos_token_id(2)
        writer.add_custom_alignment(32)
        writer.add_tensor("token_embd.weight", torch.ones(3, 4).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _MADE.append(path)
    return _MADE[0]


def header(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", 8)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (header(version=1), "GGUF version 1; this package reads 2 and 3"),
        (header(version=3 << 24), "GGUF version 50331648"),
        (header(keys=1) + text(b"a") + struct.pack("<I", 77), "no GGUF value is of type 77"),
        (header(keys=1) + struct.pack("<Q", 2**62), "truncated or damaged"),
        (header(keys=1) + text(b"\xff\xfe"), "UTF-8"),
        (header(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 0), "alignment"),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 32, 22, 0), r"kind \(number 22"),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 33, 8, 0), "blocks of 32"),
        (header(tensors=1) + text(b"t") + struct.pack("<IQIQ", 1, 32, 8, 0), "ends at byte"),
        (header(keys=1) + ARCHITECTURE + text(b"llama"), "kind 'llama'; .* reads 'qwen2'"),
        (header(keys=1) + ARCHITECTURE + text(b"qwen2"), "no token_embd.weight"),
        (header(), "of kind None"),
    ],
)
def test_what_is_wrong_is_named(content, says, tmp_path):
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        open_checkpoint(path)
    assert "wrong.gguf" in str(caught.value)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(gguf_file):
    with GGUFCheckpoint(gguf_file) as checkpoint:
        with gguf_file.open("r+b") as file:
            file.truncate(gguf_file.stat().st_size - 20)
        with pytest.raises(ValueError, match="ended inside model.norm.weight; fetch it again"):
            for name in checkpoint.shapes():
                checkpoint.tensor(name, torch.float32)


def test_metadata_without_the_models_shape_is_refused(tmp_path):
    path = tmp_path / "shapeless.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_tensor("token_embd.weight", torch.ones(3, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="has no hidden_size, .*num_hidden_layers"):
        Qwen2.from_pretrained(path)


def test_a_stretched_rope_is_read_or_refused(gguf_file):
    with GGUFCheckpoint(gguf_file) as checkpoint:
        tensors = {"model.embed_tokens.weight": SimpleNamespace(shape=(5, 2))}
        assert checkpoint.config["rope_scaling"] is None
    metadata = {"general.architecture": "qwen2", "qwen2.rope.scaling.type": "yarn",
                "qwen2.rope.scaling.factor": 4.0,
                "qwen2.rope.scaling.original_context_length": 32768}  # fmt: skip
    assert config_from(metadata, tensors, gguf_file)["rope_scaling"] == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768
    }  # fmt: skip
    with pytest.raises(ValueError, match="stretches RoPE by 'linear'"):
        config_from(metadata | {"qwen2.rope.scaling.type": "linear"}, tensors, gguf_file)
