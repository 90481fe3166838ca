"""Sampling against transformers' own processors, and by hand."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen2lite.infer.sample import Sampling, draw_one, keep_top_p, penalise_repetition, sample


def frequencies(scores_V: torch.Tensor, settings: Sampling, draws: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    many_BV = scores_V.expand(draws, -1)
    history_BT = torch.tensor([[1, 1, 4]]).expand(draws, -1)
    return torch.bincount(sample(many_BV, history_BT, settings, generator), minlength=12) / draws


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=5),
        Sampling(temperature=1.3, top_p=0.6),
        Sampling(repetition_penalty=1.8, temperature=0.9, top_k=7, top_p=0.8),
    ],
)
def test_draws_follow_transformers_distribution(settings):
    scores_V = torch.randn(12, generator=torch.Generator().manual_seed(0)) * 2
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        steps.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    wanted = steps(torch.tensor([[1, 1, 4]]), scores_V[None].clone()).softmax(-1)[0]
    got = frequencies(scores_V, settings)
    assert ((got > 0) <= (wanted > 0)).all()
    # Four standard deviations of a share counted over 20,000 draws are at most 0.015.
    assert (got - wanted).abs().max() < 0.015


@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_a_draw_is_multinomials_to_the_number(count):
    probabilities = torch.rand(50, count, generator=torch.Generator().manual_seed(count))
    probabilities[:, ::3] = 0 if count > 1 else 1
    chances = [torch.Generator().manual_seed(9) for _ in range(2)]
    for _ in range(5):
        wanted = torch.multinomial(probabilities, 1, generator=chances[0])
        assert torch.equal(draw_one(probabilities, chances[1]), wanted)


def test_greedy_takes_the_first_of_the_highest():
    logits_BV = torch.tensor([[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
    history_BT = torch.zeros(2, 4, dtype=torch.long)
    assert sample(logits_BV, history_BT, Sampling()).tolist() == [1, 0]


def test_repetition_lowers_both_signs_and_only_once():
    scores_BV = torch.tensor([[2.0, -2.0, 1.0]])
    lowered = penalise_repetition(scores_BV, torch.tensor([[0, 0, 1]]), 2.0)
    assert lowered.tolist() == [[1.0, -4.0, 1.0]]
    assert penalise_repetition(scores_BV, torch.tensor([[2]]), 2.0).tolist() == [[2.0, -2.0, 0.5]]


def test_nucleus_by_hand():
    scores = torch.tensor([[0.5, 0.3, 0.2]]).log()
    kept = keep_top_p(scores, 0.6).isfinite()
    assert kept.tolist() == [[True, True, False]]  # 0.5 alone does not reach 0.6
    kept = keep_top_p(torch.zeros(1, 2), 0.5).isfinite()
    assert kept.tolist() == [[True, False]]  # and here it does


def test_a_seed_repeats():
    logits_BV, history_BT = torch.zeros(1, 50), torch.zeros(1, 1, dtype=torch.long)
    runs = [
        [int(choose(logits_BV, history_BT)) for _ in range(20)]
        for choose in (Sampling(temperature=1, seed=s).sampler() for s in (7, 7, 8, None, None))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert runs[3] != runs[4]


def test_bfloat16_scores_are_drawn_from_as_the_same_numbers_in_float32():
    logits_BV = torch.randn(400, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    history_BT = torch.arange(5).expand(400, -1)
    drawn = [
        Sampling(1.1, 0.7, 20, 0.8, seed=0).sampler()(scores_BV, history_BT)
        for scores_BV in (logits_BV, logits_BV.float())
    ]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -2},
        {"repetition_penalty": 0},
        {"seed": 2**64},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
