"""Training: what is learnt, what is written, what is looked at, and what stops it."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qwen2lite import Qwen2
from qwen2lite.model.balance import balance_by_bias
from qwen2lite.train.by_hand import PARTS
from qwen2lite.train.gradients import Cores
from qwen2lite.train.loop import train
from qwen2lite.train.loss import NextToken
from qwen2lite.train.metrics import read_metrics


@pytest.fixture
def run(small, reader, plan, tmp_path):
    """Trains the tiny model into a folder of its own; returns the folder and the model."""

    def go(name="run", parts=None, model=None, loader=None, objective=None, more=None, **changes):
        settings = plan(**changes)
        model = model or small(parts)
        loader = loader or reader(settings)
        objective = objective(model) if objective else None
        exported = train(
            model, loader, settings, tmp_path / name, objective=objective, bar=False, **(more or {})
        )
        assert exported == tmp_path / name / "model"
        return tmp_path / name, model

    return go


def losses(folder, name="loss"):
    return [line[name] for line in read_metrics(folder / "metrics.jsonl") if name in line]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# Of ten tokens nine follow from the one before, and one is drawn: nobody can do better than this.
NOISE = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)


@pytest.mark.parametrize("parts", [None, PARTS], ids=["plain", "by hand"])
def test_it_learns_the_pattern_of_the_corpus(parts, run):
    changes = {"steps": 150, "batch_size": 8, "warmup_steps": 10, "evaluate_every": 0}
    folder, _ = run(parts=parts, **changes)
    got = losses(folder)
    assert got[0] > math.log(61) - 0.5, "at first every token is as likely as another"
    assert sum(got[-10:]) / 10 < 2.5 * NOISE
    assert len(got) == 150 and all(map(math.isfinite, got))


def test_rates_that_never_rise_teach_nothing(run):
    folder, _ = run(steps=150, batch_size=8, learning_rate=1e-9)
    assert losses(folder)[-1] > 3


def test_lines_have_what_was_done(run, plan):
    folder, _ = run(accumulation=2)
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["tokens"] for line in lines] == [step * 11 * 3 * 2 for step in range(1, 13)]
    rates = [plan().learning_rates()(step) for step in range(12)]
    assert [line["learning_rate"] for line in lines] == rates
    assert all(line["gradient_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)
    steps = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert steps == ["step-00000004", "step-00000008", "step-00000012"]


def test_a_short_gradient_makes_another_run(run):
    free, _ = run("free", max_gradient_norm=math.inf)
    short, _ = run("short", max_gradient_norm=0.1)
    assert losses(free)[0] == losses(short)[0] and losses(free)[-1] != losses(short)[-1]
    norms = [losses(folder, "gradient_norm")[0] for folder in (free, short)]
    assert norms[0] == norms[1] > 0.1, "it is measured before it is shortened"


def test_either_optimizer_gives_the_same_losses(run):
    ours, fused = (losses(run(kind, optimizer=kind, steps=40)[0]) for kind in ("ours", "fused"))
    # The two round differently, 2⁻²⁴ of a number a step; Adam's division makes that grow.
    assert ours == pytest.approx(fused, rel=1e-4)
    other = losses(run("other", optimizer="ours", steps=40, beta2=0.9)[0])
    assert other != pytest.approx(fused, rel=1e-4)


def test_cores_and_gradients_by_hand_give_the_same_losses(run, small, monkeypatch):
    used = []
    make = Cores.__init__
    monkeypatch.setattr(Cores, "__init__", lambda self, n: (used.append(n), make(self, n))[1])
    plain = losses(run("plain")[0])
    assert losses(run("cores", cores=2)[0]) == pytest.approx(plain, rel=1e-4)
    assert losses(run("both", parts=PARTS, cores=3)[0]) == pytest.approx(plain, rel=1e-4)
    assert used == [2, 3]
    sparse = small(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=10)
    balance_by_bias(sparse)
    run("sparse", model=sparse, cores=2)
    assert used == [2, 3], "two cores would count their tokens into one tensor at the same time"


@pytest.mark.parametrize("tied", [True, False])
def test_the_exported_model_is_transformers_model(tied, run, small):
    folder, model = run(model=small(tie_word_embeddings=tied))
    theirs = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model.eval()(ids), rtol=1e-4, atol=1e-5)
    ours = Qwen2.from_pretrained(folder / "model", dtype=torch.float32, device="cpu")
    assert torch.equal(weights(ours), weights(model))
    assert not (folder / "model.new").exists()


def test_a_finished_run_is_exported_again_and_trained_no_more(run):
    folder, model = run()
    before, size = weights(model).clone(), len(losses(folder))
    shutil.rmtree(folder / "model")
    (folder / "model.new").mkdir()
    (folder / "model.new" / "half").touch()
    _, again = run()
    assert torch.equal(weights(again), before) and len(losses(folder)) == size
    assert (folder / "model" / "config.json").is_file()


class Breaks(NextToken):
    """Its sixth loss is another number, or the plug is pulled."""

    def __init__(self, model, number):
        super().__init__(model)
        self.calls, self.number = 0, number

    def forward(self, ids_BT, targets_BT):
        self.calls += 1
        if self.calls == 6 and self.number is None:
            raise KeyboardInterrupt
        factor = self.number if self.calls == 6 else 1
        return super().forward(ids_BT, targets_BT) * factor


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(number, run, small, reader, tmp_path):
    model, interrupted = small(), small()
    with pytest.raises(ValueError) as caught:
        run(model=model, objective=lambda model: Breaks(model, number))
    message, kept = str(caught.value), tmp_path / "run" / "batch-00000006.safetensors"
    assert message.startswith(f"step 6 broke: its loss is {number} and the norm of its gradient ")
    assert f"its batch is in {kept}" in message and "step-00000004 is from before it" in message
    with pytest.raises(KeyboardInterrupt):
        run("five steps", model=interrupted, objective=lambda model: Breaks(model, None))
    assert torch.equal(weights(model), weights(interrupted)), "the weights of step 5"
    loader = reader()
    ids, targets = [next(loader) for _ in range(6)][-1]
    saved = load_file(kept)
    assert torch.equal(saved["ids.0"], ids) and torch.equal(saved["targets.0"], targets)
    assert len(losses(tmp_path / "run")) == 5
    run(model=model)
    assert losses(tmp_path / "run") == losses(run("never broke")[0]), "it goes on from step 4"


def test_a_batch_of_one_row_is_kept_too(run, tmp_path):
    """Its ids and targets are the same memory, which safetensors refuses to write."""
    with pytest.raises(ValueError, match="step 3 broke: .* there is no checkpoint yet"):
        run(batch_size=1, accumulation=2, objective=lambda model: Breaks(model, math.nan))
    saved = load_file(tmp_path / "run" / "batch-00000003.safetensors")
    assert {name: list(tensor.shape) for name, tensor in saved.items()} == {
        f"{name}.{number}": [1, 11] for name in ("ids", "targets") for number in (0, 1)
    }


def test_a_gradient_that_is_no_number_stops_the_run_too(run, small, tmp_path):
    class Rooted(NextToken):
        def forward(self, ids_BT, targets_BT):
            loss = super().forward(ids_BT, targets_BT)
            return loss + (loss * 0).sqrt()  # 0, and its gradient is 0 / 0

    model = small()
    before = weights(model).clone()
    with pytest.raises(ValueError, match="step 1 broke: its loss is 4.* of its gradient nan"):
        run(model=model, objective=Rooted)
    assert torch.equal(weights(model), before)


def test_in_bfloat16_the_weights_stay_float32(run):
    exact = losses(run("exact", steps=40)[0])
    folder, model = run("rough", steps=40, precision="bfloat16")
    assert model.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses(folder) == pytest.approx(exact, rel=0.05)
    assert losses(folder) != pytest.approx(exact, rel=1e-5), "the products are rounded"
