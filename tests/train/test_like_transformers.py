"""Fifty steps beside transformers' Qwen2 in a plain PyTorch loop: the same losses at every step."""

import math
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2Config as TheirConfig
from transformers import Qwen2ForCausalLM

from qwen2lite.train import loop
from qwen2lite.train.by_hand import PARTS
from qwen2lite.train.loop import train
from qwen2lite.train.metrics import read_metrics

STEPS, WARMUP, PEAK, FLOOR = 50, 10, 1e-2, 0.1


def their_model(ours):
    """transformers' model with the same first weights."""
    values = ours.config.to_dict()
    model = Qwen2ForCausalLM(TheirConfig(**values, attn_implementation="eager"))
    model.load_state_dict(ours.state_dict(), strict=not ours.config.tie_word_embeddings)
    model.tie_weights()
    return model.train()


def their_losses(model, batches, accumulation):
    """The loop as many write it: only PyTorch's own AdamW, clipping and cross-entropy."""
    matrices = [p for name, p in model.named_parameters() if "proj.weight" in name]
    if not model.config.tie_word_embeddings:
        matrices.append(model.lm_head.weight)
    inside = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in inside]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(STEPS):
        done = max(0, step + 1 - WARMUP) / (STEPS - WARMUP)
        descent = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min((step + 1) / WARMUP, descent)
        optimizer.zero_grad()
        total = 0.0
        for ids, targets in islice(batches, accumulation):
            logits = model(input_ids=ids).logits
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / accumulation
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(total)
    return losses


CASES = {
    "plain": ({}, {}, None),
    "untied": ({"tie_word_embeddings": False}, {"optimizer": "ours"}, None),
    "by hand": ({}, {}, PARTS),
    "accumulation": ({}, {"accumulation": 2, "batch_size": 2, "cores": 2}, PARTS),
}


@pytest.fixture
def both(small, reader, plan, tmp_path):
    """Our losses and theirs."""

    def go(case):
        config, changes, parts = CASES[case]
        settings = plan(
            steps=STEPS, warmup_steps=WARMUP, learning_rate=PEAK, floor=FLOOR, **changes
        )
        model = small(parts, **config)
        theirs = their_losses(their_model(model), reader(settings), settings.accumulation)
        train(model, reader(settings), settings, tmp_path, bar=False)
        ours = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
        assert len(ours) == len(theirs) == STEPS
        return ours, theirs

    return go


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_transformers(case, both):
    ours, theirs = both(case)
    assert ours[-1] < ours[0] - 1, "something was learnt"
    for step, (mine, peer) in enumerate(zip(ours, theirs, strict=True), start=1):
        assert abs(mine - peer) < 1e-4, f"step {step}: {mine} and {peer}"


def rates_come_late(set_rate):
    last = [0.0]

    def late(optimizer, rate):
        set_rate(optimizer, last[0])
        last[0] = rate

    return late


def gradients_pile_up(adamw):
    def make(settings):
        def optimizer(groups):
            made = adamw(settings)(groups)
            made.zero_grad = lambda: None
            return made

        return optimizer

    return make


BUGS = {
    "no clipping": ("clip_gradients", lambda clip: lambda weights, _: clip(weights, math.inf)),
    "late rates": ("_set_rate", rates_come_late),
    "all weights decay": ("parameter_groups", lambda groups: lambda model, _: model.parameters()),
    "other betas": ("_adamw", lambda _: lambda _: torch.optim.AdamW),
    "no zeroing": ("_adamw", gradients_pile_up),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_loop_with_a_bug_is_caught(bug, both, monkeypatch):
    name, change = BUGS[bug]
    monkeypatch.setattr(loop, name, change(getattr(loop, name)))
    ours, theirs = both("plain")
    assert max(abs(mine - peer) for mine, peer in zip(ours, theirs, strict=True)) > 1e-3
