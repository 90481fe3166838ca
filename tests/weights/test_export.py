"""What export writes, transformers and we read back."""

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.products import NarrowLinear
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.model.config import Qwen2Config
from qwen2lite.text.chat import encode_chat
from qwen2lite.weights import export as exporting
from qwen2lite.weights.export import export, split
from tests.conftest import REAL_MODEL

IDS_BT = torch.randint(0, 71, (2, 9), generator=torch.Generator().manual_seed(0))
TINY = REPOSITORY / "data" / "qwen2-tiny"


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


@pytest.mark.parametrize("shard_bytes", [10**9, 70_000, 9000])  # one file, two, many
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
    if shard_bytes > 9000:
        assert len(list(folder.glob("*.safetensors"))) == (1 if shard_bytes == 10**9 else 2)


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


def test_a_shard_is_filled_to_the_byte():
    tensors = {name: torch.zeros(5) for name in "abcde"}
    assert list(map(list, split(tensors, 40))) == [["a", "b"], ["c", "d"], ["e"]]


def test_one_file_is_all_and_every_reader_may_read_it(tmp_path):
    folder = export(small(tied=True), tmp_path / "not" / "yet" / "there")
    names = ["config.json", "generation_config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert len({(folder / name).stat().st_mode for name in names}) == 1
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_stays_and_is_said(dtype, tmp_path):
    model = small(tied=True).to(dtype)
    folder = export(model, tmp_path / "out")
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {dtype}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert theirs.dtype == dtype
    back = Qwen2.from_pretrained(folder, dtype=dtype, device="cpu")
    for ours, other in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(ours, other)


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


def test_a_break_leaves_nothing_and_the_next_call_a_folder(tmp_path, monkeypatch):
    def full(tensors, folder, max_shard_bytes):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_weights", full)
        with pytest.raises(OSError, match="disk full"):
            export(small(tied=True), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (export(small(tied=True), tmp_path / "out") / "model.safetensors").is_file()


CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": " Häl\u006co\n\n"}],
    [
        {"role": "system", "content": "Be 'brief' and \"kind\"."},
        {"role": "user", "content": "\n\ne\u0301 123"},
        {"role": "assistant", "content": "{{ Hi }}\n"},
        {"role": "user", "content": "x "},
    ],
]


@pytest.mark.parametrize("source", [TINY, pytest.param(REAL_MODEL, marks=pytest.mark.real)])
def test_transformers_encodes_texts_and_chats_as_we_do(source, tmp_path):
    ours = Qwen2Tokenizer.from_pretrained(source)
    end = ours.special_tokens["<|im_end|>"]
    ours.save(tmp_path, end)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token_id, theirs.bos_token_id) == (end, None)
    assert theirs.pad_token_id == ours.special_tokens["<|endoftext|>"]
    texts = (REPOSITORY / "data" / "languages.jsonl").read_text(encoding="utf-8").splitlines()
    for text in [*texts, "a<|im_end|>\n <|endoftext|>\t 12 . , I'LL e\u0301 \u017f \u212b"]:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == ours.decode(ids)
    for chat in CHATS:
        for open_turn in (True, False):
            ids = theirs.apply_chat_template(
                chat, add_generation_prompt=open_turn, return_dict=False
            )
            assert ids == encode_chat(ours, chat, add_generation_prompt=open_turn)
    back = Qwen2Tokenizer.from_pretrained(tmp_path)
    assert back.vocabulary.fingerprint == ours.vocabulary.fingerprint


def test_transformers_stops_where_we_stop(tmp_path):
    model = Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")
    tokenizer = Qwen2Tokenizer.from_pretrained(TINY)
    folder = export(model, tmp_path / "out", tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert theirs.generation_config.eos_token_id == [1021, 1023]  # the config's own first
    prompt = tokenizer.encode("Once there was")
    ours = list(generate_ids(model, prompt, 200, eos_ids=tokenizer.eos_ids))
    assert 0 < len(ours) < 200, "a text that ends"
    ids = torch.tensor([prompt])
    answer = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=200)
    assert answer[0].tolist() == [*prompt, *ours, 1021]


@pytest.mark.parametrize(
    ("eos", "wanted"), [(None, [1021, 1023]), (1023, [1023, 1021]), ([7, 1021], [7, 1021, 1023])]
)
def test_what_ends_a_text_is_the_configs_and_the_tokenizers(eos, wanted, tmp_path):
    model = small(tied=True)
    model.config = dataclasses.replace(model.config, eos_token_id=eos)
    folder = export(model, tmp_path / "out", Qwen2Tokenizer.from_pretrained(TINY))
    said = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert said == {"eos_token_id": wanted}
    names = {1021: "<|endoftext|>", 1023: "<|im_end|>"}  # 7 is no control token
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings.get("eos_token") == names.get(wanted[0])


def test_a_packed_model_is_refused(tmp_path):
    model = Qwen2.from_pretrained(REPOSITORY / "data" / "qwen2-tiny", torch.bfloat16, "cpu")
    with pytest.raises(ValueError, match="PackedQwen2 holds its matrices in another form"):
        export(PackedQwen2(model, NarrowLinear), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_not_an_exports_is_never_removed(tmp_path):
    part = tmp_path / "thesis.part"
    part.mkdir()
    (part / "chapter1.txt").write_text("long work", encoding="utf-8")
    (part / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"thesis.part is in the way"):
        export(small(True), tmp_path / "thesis")
    assert (part / "chapter1.txt").read_text(encoding="utf-8") == "long work"


def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    whole = export(small(True), tmp_path / "model", max_shard_bytes=20_000)
    whole.rename(tmp_path / "other.part")
    assert export(small(True), tmp_path / "other").is_dir()
    assert not (tmp_path / "other.part").exists()


def test_a_folder_at_home_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert export(small(True), "~/mine") == tmp_path / "mine"
