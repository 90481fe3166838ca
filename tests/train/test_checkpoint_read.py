"""What a checkpoint gives back, to whom, and what it refuses to give."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn

from qwen2lite.model.balance import balance_by_bias
from qwen2lite.train import checkpoint
from qwen2lite.train.checkpoint import (
    latest,
    load,
    random_states,
    read_state,
    refuse_changes,
    restore_random_states,
    save,
)
from qwen2lite.train.gradients import accumulate
from qwen2lite.train.loss import NextToken
from qwen2lite.train.optim import AdamW, parameter_groups

EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 10}
KINDS = {
    "ours": AdamW,
    "fused": lambda groups, **settings: torch.optim.AdamW(groups, fused=True, **settings),
    "plain": torch.optim.AdamW,
}


def start(model, kind="ours"):
    return KINDS[kind](parameter_groups(model, 0.3), lr=0.02, betas=(0.9, 0.95))


def go(model, optimizer, batches):
    for batch in batches:
        accumulate(NextToken(model), [batch])
        optimizer.step()
        optimizer.zero_grad()


def states(model, optimizer):
    """All numbers: of the weights, of the buffers and of the optimizer."""
    names = {p: name for name, p in model.named_parameters()}
    moments = {
        f"{names[p]}/{key}": tensor
        for p, state in optimizer.state.items()
        for key, tensor in state.items()
    }
    return {**model.state_dict(), **moments}


def same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, EXPERTS])
def test_all_numbers_come_back(changes, small, some_batches, tmp_path):
    model = small(**changes)
    optimizer = start(model)
    go(model, optimizer, some_batches(3))
    path = save(tmp_path, 3, model, optimizer, {"loader": {"place": 9}, "text": "ö"})
    assert path == latest(tmp_path) == tmp_path / "step-00000003"
    assert read_state(path) == {"step": 3, "loader": {"place": 9}, "text": "ö"}
    other = small(seed=1, **changes)
    behind = start(other)
    load(path, other, behind)
    same(states(model, optimizer), states(other, behind), rtol=0, atol=0)


def test_a_bias_of_the_router_comes_back(small, tmp_path):
    """It is a buffer, and no parameter."""
    model, other = small(**EXPERTS), small(seed=1, **EXPERTS)
    for route in balance_by_bias(model):
        route.bias_E.uniform_(-1, 1)
    balance_by_bias(other)
    load(save(tmp_path, 1, model, start(model), {}), other, start(other))
    biases = [name for name in model.state_dict() if name.endswith("bias_E")]
    assert len(biases) == 2
    same(model.state_dict(), other.state_dict(), rtol=0, atol=0)


class Tied(nn.Module):
    """One tensor under two names, which a file may hold only once."""

    def __init__(self, number):
        super().__init__()
        self.first = nn.Parameter(torch.full((2, 3), number))
        self.second = self.first


def test_tied_tensors_are_saved_once(tmp_path):
    model, other = Tied(1.0), Tied(2.0)
    load(save(tmp_path, 1, model, start(model), {}), other, start(other))
    assert (other.first == 1).all() and other.second is other.first


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_any_adamw_goes_on_where_another_stopped(before, after, small, some_batches, tmp_path):
    batches = some_batches(6)
    never_stopped, stopped, resumed = small(), small(), small(seed=1)
    go(never_stopped, start(never_stopped, before), batches)
    optimizer = start(stopped, before)
    go(stopped, optimizer, batches[:3])
    path = save(tmp_path, 3, stopped, optimizer, {})
    optimizer = start(resumed, after)
    load(path, resumed, optimizer)
    go(resumed, optimizer, batches[3:])
    # Adam divides by roots: a last bit of a small gradient moves its weight by a few of a step's.
    tolerance = {"rtol": 0, "atol": 0} if before == after else {"rtol": 1e-4, "atol": 1e-5}
    same(never_stopped.state_dict(), resumed.state_dict(), **tolerance)
    forgetful = small()
    forgetful.load_state_dict(stopped.state_dict())
    go(forgetful, start(forgetful, after), batches[3:])
    with pytest.raises(AssertionError):
        same(never_stopped.state_dict(), forgetful.state_dict(), rtol=1e-2, atol=1e-2)


def test_a_loaded_checkpoint_may_go(small, some_batches, tmp_path):
    """What safetensors reads is the file itself; Windows removes no file that is in use."""
    model = small()
    optimizer = start(model)
    go(model, optimizer, some_batches(1))
    path = save(tmp_path, 1, model, optimizer, {})
    load(path, model, optimizer)
    before = {name: tensor.clone() for name, tensor in states(model, optimizer).items()}
    for file in path.glob("*.safetensors"):
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.write(bytes(size))
    same(before, states(model, optimizer), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "noise"])
def test_a_damaged_file_is_named_and_the_one_before_is_there(name, damage, small, tmp_path):
    model = small()
    optimizer = start(model)
    for step in (1, 2):
        path = save(tmp_path, step, model, optimizer, {})
    file = path / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        size = len(content)
        file.write_bytes(
            {"cut": content[: size - 9], "empty": b"", "noise": b"\xff" * size}[damage]
        )
    with pytest.raises(ValueError) as caught:
        read_state(path)
        load(path, model, optimizer)
    message = str(caught.value)
    assert message.startswith(f"{file} is damaged; delete that folder, and training goes on from")
    shutil.rmtree(path)
    load(latest(tmp_path), model, optimizer)


@pytest.mark.parametrize("text", ["{}", "[]", '"step"', '{"step": "first"}', '{"step": null}'])
def test_a_state_without_a_step_is_damaged(text, tmp_path):
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="state.json is damaged; delete that folder"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"vocab_size": 62}, "model.embed_tokens.weight is [61, 24] in it and [62, 24] here"),
        ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is [24] in it and not"),
        ({"tie_word_embeddings": False}, "lm_head.weight is not there in it and [61, 24] here"),
    ],
)
def test_another_model_is_refused(changes, wanted, small, tmp_path):
    model, other = small(), small(**changes)
    path = save(tmp_path, 1, model, start(model), {})
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load(path, other, start(other))
    assert "step-00000001 is of another model: " in str(caught.value)
    assert wanted in str(caught.value) and "use the config it was trained with" in str(caught.value)
    same(before, other.state_dict(), rtol=0, atol=0)


def test_a_change_is_named_with_both_values(plan):
    saved = dataclasses.asdict(plan()) | {"sample_prompts": ["a"]}
    now = saved | {"sample_prompts": ("a",)}
    refuse_changes(saved, now, "settings")
    with pytest.raises(ValueError) as caught:
        refuse_changes(saved, now | {"steps": 99}, "settings")
    assert str(caught.value) == (
        "can't resume with another settings: steps was 12 and is 99; set it back, or train into a "
        "new folder"
    )
    refuse_changes(saved, now | {"steps": 99}, "settings", {"steps"})
    with pytest.raises(ValueError, match="floor was 0.1 and is 0.2"):
        refuse_changes(saved, now | {"steps": 99, "floor": 0.2}, "settings", {"steps"})
    with pytest.raises(ValueError, match="new was None and is 1"):
        refuse_changes(saved, now | {"new": 1}, "settings")
    with pytest.raises(ValueError, match="seed was 0 and is None"):
        refuse_changes(saved, {k: v for k, v in now.items() if k != "seed"}, "settings")


def test_random_numbers_go_on():
    states = random_states()
    first = torch.rand(5), torch.randn(3)
    assert not torch.equal(torch.rand(5), first[0])
    restore_random_states(states)
    assert torch.equal(torch.rand(5), first[0]) and torch.equal(torch.randn(3), first[1])
    assert set(states) == {"cpu"} or torch.cuda.is_available()
    assert checkpoint.random_states().keys() == states.keys()
