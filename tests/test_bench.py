"""The bench command on the small model, as a person and as a program read it."""

import json

import pytest

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.commands import bench, peers
from qwen2lite.commands.peers import Transformers, as_folder
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.weights.export import export
from qwen2lite.weights.sources import cached_path
from tests.conftest import REAL_MODEL
from tests.test_command_line import run

TINY = ("bench", "--model", str(REPOSITORY / "data" / "qwen2-tiny"), "--repeats", "1")


def test_json_has_every_figure_of_each_row(tmp_path):
    flags = ("--dtype", "float32,int4", "--peer", "transformers", "--json")
    result = run(*TINY, *flags, QWEN2LITE_CACHE=str(tmp_path))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    names = [(row["program"], row["format"]) for row in found["rows"]]
    assert names == [("qwen2lite", "float32"), ("qwen2lite", "int4"), ("transformers", "bfloat16")]
    for row in found["rows"]:
        figures = {name: row[name] for name in row.keys() - {"program", "format"}}
        assert len(figures) == 9 and min(figures.values()) > 0, figures
        assert row["first_token_s"] < 120
        assert row["prefill_share"] < 1.2


def test_the_table_says_what_its_figures_mean(tmp_path):
    result = run(*TINY, "--dtype", "int8", QWEN2LITE_CACHE=str(tmp_path))
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["program", "format"]
    assert lines[2].split()[:2] == ["qwen2lite", "int8"]
    assert "It reads" in result.stdout and "multiplies" in result.stdout


def test_what_cannot_be_measured_is_left_out_and_says_why(tmp_path, monkeypatch, capsys):
    job = {"program": "qwen2lite", "kind": "bfloat16", "compiled": False, "source": "nowhere"}
    assert bench._measured(job | {"device": "cpu", "threads": 1, "repeats": 1}) is None
    assert "left out: FileNotFoundError: no file, folder or model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--peer", "vllm"), "no peer is called 'vllm'"),
        (("--threads", "-1"), "--threads must be 1 or more, got -1"),
        (("--repeats", "0"), "--repeats must be 1 or more, got 0"),
        (("--dtype", "int3"), "no format is called 'int3'"),
        (("--peer", "llama.cpp"), "llama.cpp reads .gguf files"),
    ],
)
def test_wrong_names_are_one_sentence_and_status_2(flags, says):
    result = run(*TINY, *flags)
    assert result.returncode == 2
    assert says in result.stderr and "Traceback" not in result.stderr


@pytest.mark.real
def test_decoding_is_not_faster_than_memory(real_tokenizer):
    result = run("bench", "--model", REAL_MODEL, "--dtype", "int4", "--repeats", "1", "--json")
    row = json.loads(result.stdout)["rows"][0]
    assert 0.02 < row["decode_share"] < 1.5  # caches may hold a part of 300 MB
    assert row["peak_bytes"] > 0.5 * cached_path(REAL_MODEL).stat().st_size


def test_a_peer_with_experts_is_one_with_experts(tmp_path):
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = Qwen2Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, shared_expert_intermediate_size=24, **sizes
    )  # fmt: skip
    folder = export(Qwen2(config), tmp_path / "model")
    assert "Moe" in type(Transformers(folder).model).__name__


def test_two_files_of_one_name_are_two_models(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peers.Qwen2, "from_pretrained", lambda *_: None)
    monkeypatch.setattr(peers.Qwen2Tokenizer, "from_pretrained", lambda *_: None)
    monkeypatch.setattr(
        peers, "export", lambda _model, folder, _tokenizer: folder.mkdir(parents=True)
    )
    found = set()
    for name in ("one", "two"):
        path = tmp_path / name / "model.gguf"
        path.parent.mkdir()
        path.write_bytes(b"GGUF")
        found.add(as_folder(path))
    path.write_bytes(b"GGUF and more")
    assert len(found | {as_folder(path)}) == 3
