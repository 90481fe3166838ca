"""Hugging Face folders: whole, in shards, damaged, and in pickle."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen2lite import Qwen2
from qwen2lite.weights.checkpoint import open_checkpoint


def test_every_tensor_is_as_safetensors_reads_it(hf_folder):
    wanted = load_file(hf_folder / "model.safetensors")
    with open_checkpoint(hf_folder) as checkpoint:
        assert checkpoint.shapes() == {name: tuple(t.shape) for name, t in wanted.items()}
        got = {name: checkpoint.tensor(name, torch.float32) for name in wanted}
        rounded = checkpoint.tensor("model.norm.weight", torch.bfloat16)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert torch.equal(rounded, wanted["model.norm.weight"].bfloat16())


def test_config_and_generation_config_are_read(hf_folder):
    (hf_folder / "generation_config.json").write_text('{"top_k": 20}', encoding="utf-8")
    with open_checkpoint(hf_folder) as checkpoint:
        assert checkpoint.config["vocab_size"] == 71
        assert checkpoint.generation_config == {"top_k": 20}
    (hf_folder / "generation_config.json").unlink()
    with open_checkpoint(hf_folder) as checkpoint:
        assert checkpoint.generation_config == {}


def test_shards_give_the_same_model(reference, hf_folder, tmp_path):
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) >= 2
    whole = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    shards = Qwen2.from_pretrained(tmp_path / "shards", dtype=torch.float32, device="cpu")
    ours = dict(whole.named_parameters())
    assert all(torch.equal(ours[name], value) for name, value in shards.named_parameters())


def test_writing_into_a_loaded_weight_leaves_the_file_alone(hf_folder):
    """Training starts from loaded weights; the file is not the place where it ends."""
    before = (hf_folder / "model.safetensors").read_bytes()
    model = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (hf_folder / "model.safetensors").read_bytes() == before


def test_weights_survive_the_replacement_of_their_file(hf_folder):
    wanted = load_file(hf_folder / "model.safetensors")["model.norm.weight"].clone()
    model = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    other = hf_folder / "other.safetensors"
    save_file({"a": torch.ones(3)}, other)
    other.replace(hf_folder / "model.safetensors")
    assert torch.equal(model.model.norm.weight, wanted)


def test_cut_at_any_place_it_is_refused(hf_folder):
    path = hf_folder / "model.safetensors"
    data = path.read_bytes()
    for length in [0, 1, 7, 8, 9, *range(10, len(data), 1009), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated or damaged"):
            open_checkpoint(hf_folder)


def test_a_flipped_byte_of_the_header_is_refused_or_harmless(hf_folder):
    path = hf_folder / "model.safetensors"
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for at in range(0, size, 11):
        damaged = bytearray(data)
        damaged[at] ^= 0x04
        path.write_bytes(damaged)
        try:
            Qwen2.from_pretrained(hf_folder, device="cpu")
        except ValueError:
            refused += 1
    assert refused > size / 11 * 0.9  # a letter of the metadata or padding may change nothing


def test_a_missing_shard_is_named(reference, tmp_path):
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    lost = sorted((tmp_path / "shards").glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {lost.name}; fetch the model again"):
        open_checkpoint(tmp_path / "shards")


def test_a_truncated_shard_is_named(reference, tmp_path):
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    short = sorted((tmp_path / "shards").glob("model-*.safetensors"))[1]
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{short.name} is truncated"):
        open_checkpoint(tmp_path / "shards")


def test_pickle_is_not_read(hf_folder):
    weights = load_file(hf_folder / "model.safetensors")
    torch.save(weights, hf_folder / "pytorch_model.bin")
    open_checkpoint(hf_folder)  # beside safetensors it is passed over
    (hf_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="nothing here reads pickle"):
        open_checkpoint(hf_folder)


def test_no_weights_at_all(hf_folder):
    (hf_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        open_checkpoint(hf_folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b'{"vocab_size": 7', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "should hold a JSON object, not a list"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_damaged_json_is_named(name, content, says, hf_folder):
    (hf_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        open_checkpoint(hf_folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}])
def test_an_index_without_places_is_refused(index, hf_folder):
    path = hf_folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="has no weight_map"):
        open_checkpoint(hf_folder)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json; is it a model folder\?"):
        open_checkpoint(tmp_path)
