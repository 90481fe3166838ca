"""A look at a run, by evaluation or by samples, changes nothing of it."""

import pytest
import torch
import torch.nn.functional as F

from qwen2lite import Qwen2Tokenizer
from qwen2lite.model.balance import balance_by_bias
from qwen2lite.text.vocabulary import vocabulary_of
from qwen2lite.train import loop
from qwen2lite.train.checkpoint import latest
from qwen2lite.train.loop import evaluate, train
from qwen2lite.train.loss import IGNORED, NextToken
from qwen2lite.train.metrics import read_metrics

EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 10}
LOOKS = {"evaluate_every": 3, "sample_every": 4, "sample_prompts": ("ab", "ö"), "sample_tokens": 6}


@pytest.fixture
def tokenizer():
    return Qwen2Tokenizer(vocabulary_of([]))


@pytest.fixture
def run(small, reader, plan, some_batches, tokenizer, tmp_path):
    """Trains with or without looks; returns the lines and the weights."""

    def go(name, looks, experts=False, **changes):
        model = small(vocab_size=259, **(EXPERTS if experts else {}))
        if experts:
            balance_by_bias(model, rate=0.1)
        settings = plan(**({**LOOKS, **changes} if looks else {**changes, "evaluate_every": 0}))
        held_out = some_batches(2, seed=9) if looks else ()
        folder = train(
            model, reader(settings), settings, tmp_path / name, held_out=held_out,
            tokenizer=tokenizer, bar=False,
        ).parent  # fmt: skip
        return read_metrics(folder / "metrics.jsonl"), model.state_dict()

    return go


def changes_nothing(run, **more):
    (seen, looked_at), (alone, left_alone) = (run(str(looks), looks, **more) for looks in (1, 0))
    names = ("step", "loss", "gradient_norm", "learning_rate")
    lines = [[line[name] for name in names] for line in seen if "loss" in line]
    assert lines == [[line[name] for name in names] for line in alone]
    assert all(torch.equal(looked_at[name], left_alone[name]) for name in left_alone)
    return seen


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("cores", [1, 2])
def test_training_is_the_same_with_looks_and_without(experts, cores, run):
    lines = changes_nothing(run, experts=experts, cores=cores)
    assert [line["step"] for line in lines if "held_out_loss" in line] == [3, 6, 9, 12]
    samples = [(line["step"], line["prompt"]) for line in lines if "sample" in line]
    assert samples == [(step, prompt) for step in (4, 8, 12) for prompt in ("ab", "ö")]


def test_samples_in_bfloat16_change_nothing(run):
    changes_nothing(run, precision="bfloat16")


def test_a_sample_that_fails_does_not_cost_the_checkpoint(run, tmp_path):
    with pytest.raises(ValueError, match="64"):
        run("it", True, sample_prompts=("more than can be read " * 5,))
    assert latest(tmp_path / "it" / "checkpoints").name == "step-00000004"
    lines, _ = run("it", True)
    assert [line["step"] for line in lines if "sample" in line] == [8, 8, 12, 12]


@pytest.mark.parametrize("bug", ["trains on it", "counts its tokens"])
def test_a_look_that_changes_something_is_caught(bug, run, monkeypatch):
    def trains_on_it(objective, batches, dtype):
        loss = objective(*batches[0])
        loss.backward()
        return loss.item()

    def counts_its_tokens(objective, batches, dtype):
        with torch.no_grad():
            return float(objective(*batches[0]))

    wrong = {"trains on it": trains_on_it, "counts its tokens": counts_its_tokens}
    if bug == "draws numbers":
        pytest.skip(
            "nothing in Qwen2's training draws any; test_resume.py has an objective that does"
        )
    monkeypatch.setattr(loop, "evaluate", wrong[bug])
    with pytest.raises(AssertionError):
        changes_nothing(run, experts=True, evaluate_every=1)


def test_the_held_out_loss_is_the_mean_over_all_targets(small, some_batches):
    model = small()
    (ids, targets), second, (more_ids, more) = some_batches(3)
    targets = targets.clone()
    targets[:, 2:] = IGNORED
    batches = [(ids, targets), second, (more_ids, torch.full_like(more, IGNORED))]
    all_targets = torch.cat([t.flatten() for _, t in batches])
    with torch.no_grad():
        logits = torch.cat([model(i).flatten(0, 1) for i, _ in batches])
    wanted = F.cross_entropy(logits, all_targets, ignore_index=IGNORED)
    assert evaluate(NextToken(model), batches) == pytest.approx(float(wanted), rel=1e-5)
    rough = evaluate(NextToken(model), batches, torch.bfloat16)
    assert 1e-6 < abs(rough / float(wanted) - 1) < 0.02


def test_nothing_to_evaluate_is_said(small, some_batches):
    ((ids, targets),) = some_batches(1)
    for batches in ([], [(ids, torch.full_like(targets, IGNORED))]):
        with pytest.raises(ValueError, match=f"no position in {len(batches)} batches has a target"):
            evaluate(NextToken(small()), batches)


@pytest.mark.parametrize("training", [True, False])
def test_after_an_evaluation_a_model_is_in_the_mode_it_was_in(training, small, some_batches):
    model = small().train(training)
    seen = []
    model.register_forward_hook(lambda module, *_: seen.append(module.training))
    objective = NextToken(model).train(training)
    objective.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(objective, some_batches(2))
    assert seen == [False, False]
    assert objective.training == model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_samples_are_the_likeliest_continuation(run, small, tokenizer, tmp_path):
    lines, weights = run("it", True)
    model = small(vocab_size=259)
    model.load_state_dict(weights)
    last = [line for line in lines if line.get("prompt") == "ab"][-1]
    ids = tokenizer.encode("ab")
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert last["sample"] == tokenizer.decode(ids[2:])
    exported = Qwen2Tokenizer.from_pretrained(tmp_path / "it" / "model")
    assert exported.encode("ab ö") == tokenizer.encode("ab ö")
