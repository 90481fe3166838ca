"""What is counted on paper is what a model has, computes and allocates."""

import dataclasses
import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qwen2lite import Qwen2
from qwen2lite.model.attention import attend
from qwen2lite.model.config import CONFIGS
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.parts import Parts
from qwen2lite.train import cost
from qwen2lite.train.loss import NextToken
from qwen2lite.train.plan import Plan, plan
from qwen2lite.train.processes import Alone
from tests.train.many_processes import LARGER, peak_bytes

UNTIED = dataclasses.replace(LARGER, tie_word_embeddings=False)
SPARSE = dataclasses.replace(
    UNTIED,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    shared_expert_intermediate_size=256,
    mlp_only_layers=(1,),
)
FEW_WORDS = dataclasses.replace(UNTIED, vocab_size=200)
ALONE = Alone(torch.device("cpu"))
PUBLISHED = {  # Qwen2's blog rounds them: 0.49, 1.54, 7.07 + one embedding, 57.41 and 72.71 billion
    "0.5b": 494_032_768,
    "1.5b": 1_543_714_304,
    "7b": 7_615_616_512,
    "57b-a14b": 57_408_658_944,
    "72b": 72_706_203_648,
}


def on_meta(config) -> Qwen2:
    with torch.device("meta"), WithoutInitialising():
        return Qwen2(config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_models(name):
    model = on_meta(CONFIGS[f"qwen2-{name}"])
    assert plan(name).parameters == sum(p.numel() for p in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("config", [LARGER, UNTIED, SPARSE])
def test_parameters_of_other_shapes(config):
    model = on_meta(config)
    assert cost.parameters(config) == sum(p.numel() for p in model.parameters())


def test_a_token_uses_few_experts():
    config = CONFIGS["qwen2-57b-a14b"]
    names = dict(on_meta(config).named_parameters())
    idle = [p.numel() for n, p in names.items() if ".experts." in n and int(n.split(".")[5]) >= 8]
    total = sum(p.numel() for p in names.values())
    assert cost.parameters(config, active=True) == total - sum(idle) == 14_249_270_784


@pytest.mark.parametrize("config", [LARGER, UNTIED, SPARSE])
def test_flops_are_those_of_the_products(config):
    """PyTorch counts the products that run, here with the scores of hidden keys too."""
    length = 64
    model = Qwen2(config, Parts(attend=attend))
    ids_BT = torch.randint(0, config.vocab_size, (2, length))
    with FlopCounterMode(display=False) as counter:
        NextToken(model)(ids_BT, ids_BT).backward()
    width = config.num_attention_heads * config.head_dim
    hidden = 6 * config.num_hidden_layers * width * length
    counted = counter.get_total_flops() / ids_BT.numel() - hidden
    # Norms and biases are parameters and no products: a few thousandths at this size.
    assert cost.flops_per_token(config, length) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("config", [LARGER, UNTIED, SPARSE])
def test_reading_a_prompt_scores_one_position(config):
    length = 64
    model = Qwen2(config, Parts(attend=attend))
    ids_BT = torch.randint(0, config.vocab_size, (1, length))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(ids_BT, last_only=True)
    hidden = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    counted = counter.get_total_flops() - hidden * length
    assert cost.prefill_flops(config, length) == pytest.approx(counted, rel=0.01)


def test_mfu_by_hand():
    config = CONFIGS["qwen2-0.5b"]
    flops = 6 * 494_032_768 + 6 * 24 * 896 * 4096
    assert cost.flops_per_token(config, 4096) == flops
    assert cost.mfu(config, 4096, 100_000, 989e12) == pytest.approx(100_000 * flops / 989e12)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [LARGER, UNTIED, SPARSE, FEW_WORDS],
                         ids=["tied", "untied", "sparse", "few words"])  # fmt: skip
def test_the_peak_is_the_measured_one(config, precision, activation_checkpointing):
    """Within 5 % of what one step of two batches allocates beyond weights and optimizer.

    Up to 30 % too much where a layer that is computed twice counts, see `Plan.total`.
    """
    paper = Plan(config=config, sequence_length=256, batch_size=2, precision=precision,
                 activation_checkpointing=activation_checkpointing)  # fmt: skip
    planned = paper.total - paper.weights - paper.optimizer
    measured = peak_bytes(paper, ALONE)
    print(f"{planned / measured:.3f} of {measured:,} bytes")
    layer_counts = activation_checkpointing and paper.layer > paper.logits
    most = 1.3 if layer_counts else 1.05
    assert 0.95 * measured <= planned <= most * measured
    assert layer_counts == (config is FEW_WORDS and activation_checkpointing)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_that_are_taken_in_pieces(precision):
    paper = Plan(config=UNTIED, sequence_length=256, batch_size=2, precision=precision)
    chunk = 128 * UNTIED.vocab_size
    pieces = cost.logits_bytes(UNTIED, 512, precision, chunk)
    assert pieces < paper.logits
    planned = paper.total - paper.weights - paper.optimizer - paper.logits + pieces
    assert planned == pytest.approx(peak_bytes(paper, ALONE, chunk), rel=0.05)


def test_weights_and_optimizer_are_the_allocated_ones():
    model = Qwen2(LARGER)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.tensor([[1, 2]])).sum().backward()
    optimizer.step()
    paper = plan(LARGER)
    assert paper.weights == sum(p.nbytes for p in model.parameters())
    assert paper.gradients == sum(p.grad.nbytes for p in model.parameters())
    means = [s[name] for s in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert paper.optimizer == sum(mean.nbytes for mean in means)


def test_what_is_advised_fits():
    kinds = set()
    for name, gpus, length, size in itertools.product(
        ("0.5b", "7b", "72b"), (1, 8), (1024, 4096, 131072), (1, 16)
    ):
        for parallel in ("none",) if gpus == 1 else ("ddp", "fsdp"):
            paper = plan(
                name, gpus=gpus, sequence_length=length, batch_size=size, parallel=parallel
            )
            remedy = paper.remedy
            kinds.add(None if remedy is None else tuple(remedy))
            assert paper.fits == (remedy == {})
            if remedy is not None:
                assert dataclasses.replace(paper, **remedy).fits
                assert all(f"{n} = {v!r}" in paper.advice for n, v in remedy.items())
            else:
                assert "make it shorter" in paper.advice
    assert {None, (), ("parallel",), ("batch_size",), ("activation_checkpointing",)} <= kinds


def test_more_sequences_that_are_advised_fit_and_twice_as_many_do_not():
    paper = plan("0.5b")
    most = int(paper.advice.rpartition("= ")[2])
    assert dataclasses.replace(paper, batch_size=most).fits
    assert not dataclasses.replace(paper, batch_size=2 * most).fits


def test_days_by_hand():
    paper = plan("1.5b", gpus=4, parallel="ddp", peak_flops=1e15, mfu=0.5, tokens=8.64e9)
    per_second = 4 * 0.5e15 / paper.flops_per_token
    assert paper.days == pytest.approx(8.64e9 / per_second / 86400)
    assert f"{paper.days * 24:.1f} hours" in str(paper)


def test_the_peak_is_that_of_the_precision():
    """Of an H100 SXM, from its data sheet."""
    settings = {"mfu": 1.0, "sequence_length": 1024}
    for precision, peak in (("bfloat16", 989e12), ("float32", 67e12)):
        paper = plan("0.5b", precision=precision, **settings)
        assert paper.tokens_per_second == pytest.approx(peak / paper.flops_per_token)
    given = plan("0.5b", precision="float32", peak_flops=1e15, **settings)
    assert given.tokens_per_second == pytest.approx(1e15 / given.flops_per_token)


@pytest.mark.parametrize("settings", [{}, {"activation_checkpointing": True, "batch_size": 64}])
def test_the_table_adds_up(settings):
    paper = plan("0.5b", **settings)
    rows = [line.split() for line in str(paper).splitlines() if " GB" in line and "it " not in line]
    sizes = {row[0]: float(row[1].replace(",", "")) for row in rows}
    total = sizes.pop("total")
    assert sum(sizes.values()) == pytest.approx(total, abs=0.05 * len(rows))
    assert total == pytest.approx(paper.total / 1e9, abs=0.05)
    assert ("layer" in sizes) == (paper.layer > paper.logits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gpus": 8}, "'ddp' or 'fsdp' for 8 GPUs"),
        ({"parallel": "fsdp"}, "parallel must be 'none' for 1 GPU,"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"mfu": 40}, "at most 1"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"memory": float("nan")}, "memory must be above 0"),
        ({"memory": float("inf")}, "memory must be above 0 and not infinite, got inf"),
        ({"peak_flops": 0}, "peak_flops must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        plan("7b", **wrong)


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"0.5b, 1.5b, 7b, 57b-a14b, 72b"):
        plan("14b")
    assert plan("Qwen2-7B").config is CONFIGS["qwen2-7b"]
