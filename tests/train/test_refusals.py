"""What is refused, before anything is trained, and in which words."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from qwen2lite import Qwen2Tokenizer
from qwen2lite.text.vocabulary import vocabulary_of
from qwen2lite.train.checkpoint import latest
from qwen2lite.train.folder import FREE
from qwen2lite.train.loader import Loader
from qwen2lite.train.loop import train


@pytest.fixture
def run(small, reader, plan, tmp_path):
    """Trains in one and the same folder; after `first` with changes."""

    def go(model=None, loader=None, tokenizer=None, may_change=(), **changes):
        settings = plan(**changes)
        loader = loader or reader(settings)
        return train(
            model or small(), loader, settings, tmp_path / "run", tokenizer=tokenizer,
            may_change=may_change, bar=False,
        )  # fmt: skip

    return go


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run, tmp_path, *sentences, **changes):
    """With those changes the run isn't resumed, and its folder stays as it was."""
    before = content(tmp_path)
    with pytest.raises(ValueError) as caught:
        run(**changes)
    assert all(sentence in str(caught.value) for sentence in sentences), caught.value
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"steps": 20}, "another setting: steps was 12 and is 20"),
        ({"learning_rate": 1e-3}, "learning_rate was 0.01 and is 0.001"),
        ({"schedule": "linear"}, "schedule was 'cosine' and is 'linear'"),
        ({"beta2": 0.99}, "beta2 was 0.95 and is 0.99"),
        ({"precision": "bfloat16"}, "precision was 'auto' and is 'bfloat16'"),
        ({"accumulation": 2}, "was 3 and is 6"),
        ({"seed": 1}, "seed was 0 and is 1"),
    ],
)
def test_changed_settings(changes, sentence, run, tmp_path):
    run()
    refused(run, tmp_path, sentence, "set it back, or train into a new folder", **changes)


def test_settings_that_may_change(run, tmp_path):
    run()
    free = {"log_every": 3, "checkpoint_every": 5, "optimizer": "ours", "keep_checkpoints": 1}
    run(may_change=("steps",), steps=20, **free)
    assert latest(tmp_path / "run" / "checkpoints").name == "step-00000020"
    refused(run, tmp_path, "learning_rate was", may_change=("steps",), steps=30, learning_rate=1.0)


def test_another_config(run, small, tmp_path):
    run()
    model = small(num_hidden_layers=3)
    refused(run, tmp_path, "another config: num_hidden_layers was 2 and is 3", model=model)
    model = small(rope_theta=500.0)
    refused(run, tmp_path, "another config: rope_theta was 1000000.0 and is 500.0", model=model)


def test_another_vocabulary(run, tmp_path):
    first = Qwen2Tokenizer(vocabulary_of([]))
    run(tokenizer=first)
    other = Qwen2Tokenizer(vocabulary_of([(b"a", b"b")]))
    fingerprints = [t.vocabulary.fingerprint for t in (first, other)]
    sentence = "another vocabulary: fingerprint was '{}' and is '{}'".format(*fingerprints)
    refused(run, tmp_path, sentence, tokenizer=other)
    refused(run, tmp_path, "another vocabulary: fingerprint was", "and is None")
    run(tokenizer=Qwen2Tokenizer(vocabulary_of([])))


def test_another_corpus(run, reader, tmp_path):
    run()
    refused(run, tmp_path, "tokens was 600 and is 700", loader=reader(tokens=700))


def test_a_damaged_checkpoint_is_named_and_may_be_deleted(run, tmp_path):
    run()
    newest = latest(tmp_path / "run" / "checkpoints")
    (newest / "state.json").write_text("{", encoding="utf-8")
    refused(run, tmp_path, f"{newest / 'state.json'} is damaged; delete that folder")
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    run()
    assert latest(tmp_path / "run" / "checkpoints") == newest


@pytest.mark.parametrize("gone", ["vocabulary", "config", "settings", "loader", "random"])
def test_a_state_without_what_a_run_needs_is_damaged(gone, run, tmp_path):
    run()
    path = latest(tmp_path / "run" / "checkpoints") / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state[gone]
    path.write_text(json.dumps(state), encoding="utf-8")
    refused(run, tmp_path, f"{path} is damaged; delete that folder", gone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_would_round_updates_away(dtype, run, small, tmp_path):
    with pytest.raises(ValueError, match=f"the weights are {dtype}, .* dtype=torch.float32"):
        run(model=small().to(dtype))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("eos", [None, 61, 151643, [61, 0]])
def test_a_document_mask_needs_an_end(eos, run, small):
    with pytest.raises(ValueError, match="eos_token_id is .* in a vocabulary of 61; set it right"):
        run(model=small(eos_token_id=eos), document_mask=True)


def test_a_document_mask_makes_another_run_and_learns(run, small, tmp_path):
    run(document_mask=True, model=small(eos_token_id=[0, 7]))
    masked = content(tmp_path / "run" / "model")
    assert masked
    refused(run, tmp_path, "document_mask was True and is False", model=small(eos_token_id=[0, 7]))


@pytest.mark.parametrize("tokens", [0, 1, 11, 33])
def test_a_corpus_that_is_empty_or_too_small(tokens, run):
    with pytest.raises(
        ValueError, match=f"{tokens} tokens give .* windows of 11, and a step takes 3"
    ):
        run(loader=Loader(np.zeros(tokens, np.uint16), 11, 3))
    Loader(np.zeros(34, np.uint16), 11, 3)


def test_tensorboard_that_is_not_there(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard = true needs TensorBoard: pip install"):
        run(tensorboard=True)


def test_every_setting_is_either_free_or_held(plan):
    """A new setting is held by itself; the list of free ones may name none that is gone."""
    assert {field.name for field in dataclasses.fields(plan())} >= FREE
