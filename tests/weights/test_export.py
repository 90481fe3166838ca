"""What export writes, transformers and we read back."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from qwen2lite import Qwen2
from qwen2lite.model.config import Qwen2Config
from qwen2lite.weights import export as exporting
from qwen2lite.weights.export import export

IDS_BT = torch.randint(0, 71, (2, 9), generator=torch.Generator().manual_seed(0))


def small(tied: bool) -> Qwen2:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=71,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_theta=5000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        eos_token_id=[3, 5],
    )
    model = Qwen2(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model


@pytest.mark.parametrize("shard_bytes", [10**9, 9000])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_and_we_get_the_same_model_back(tied, shard_bytes, tmp_path):
    model = small(tied)
    folder = export(model, tmp_path / "out", max_shard_bytes=shard_bytes)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    back = Qwen2.from_pretrained(folder, dtype=torch.float32, device="cpu")
    assert back.config == model.config
    with torch.inference_mode():
        assert torch.equal(back(IDS_BT), model(IDS_BT))
        assert (theirs.eval()(IDS_BT).logits - model(IDS_BT)).abs().max() <= 1e-5
    assert theirs.generation_config.eos_token_id == [3, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_tied_weights_are_stored_once(tmp_path):
    stored = load_file(export(small(tied=True), tmp_path / "out") / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert sum(t.numel() for t in stored.values()) == sum(
        p.numel() for p in small(tied=True).parameters()
    )


def test_shards_are_as_small_as_asked_and_all_in_the_index(tmp_path):
    model = small(tied=True)
    folder = export(model, tmp_path / "out", max_shard_bytes=9000)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    sizes = {}
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        assert all(index["weight_map"][name] == path.name for name in tensors)
        sizes[path.name] = (sum(t.nbytes for t in tensors.values()), len(tensors))
    assert all(size <= 9000 or count == 1 for size, count in sizes.values())
    assert set(index["weight_map"]) == {name for name, _ in model.named_parameters()}
    assert index["metadata"]["total_size"] == sum(size for size, _ in sizes.values())


def test_bfloat16_stays_bfloat16_and_is_said(tmp_path):
    folder = export(small(tied=True).bfloat16(), tmp_path / "out")
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"


def test_sampling_settings_go_along(tmp_path):
    settings = {"eos_token_id": [3], "top_k": 20, "temperature": 0.7, "do_sample": True}
    folder = export(small(tied=True), tmp_path / "out", generation_config=settings)
    back = transformers.GenerationConfig.from_pretrained(folder)
    assert (back.eos_token_id, back.top_k, back.temperature) == ([3], 20, 0.7)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is not empty; export to a new folder"):
        export(small(tied=True), tmp_path)
    with pytest.raises(ValueError, match="is not empty"):
        export(small(tied=True), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_break_leaves_no_folder_and_the_next_call_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_weights", full)
        with pytest.raises(OSError, match="disk full"):
            export(small(tied=True), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
    assert (export(small(tied=True), tmp_path / "out") / "model.safetensors").is_file()
