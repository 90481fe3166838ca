"""The contracts of lesson 33 accept every right answer, and transformers' steps agree with ours."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen2lite.infer.sample import CHAT_SAMPLING, Sampling, keep_top_p, penalise_repetition, sample
from qwen2lite.learn.mutants import sampling as mutants
from tests.learn.verdict import verdict


def penalised_by_loop(scores, ids, penalty):
    out = scores.clone()
    for row, seen in enumerate(ids.tolist()):
        for token in set(seen):
            score = float(scores[row, token])
            out[row, token] = score / penalty if score > 0 else score * penalty
    return out


def penalised_by_mask(scores, ids, penalty):
    seen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, ids, True)
    lowered = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen, lowered, scores)


def penalised_by_processor(scores, ids, penalty):
    return RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())


def nucleus_by_loop(scores, p):
    out = torch.full_like(scores, -torch.inf)
    for row, shares in enumerate(scores.softmax(-1)):
        total = 0.0
        for place, share in enumerate(shares):
            out[row, place] = scores[row, place]
            total += share
            if total >= p:
                break
    return out


def nucleus_by_shift(scores, p):
    sums = scores.softmax(-1).cumsum(-1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums[:, :-1]), dim=-1)
    return torch.where(before < p, scores, -torch.inf)


def nucleus_by_count(scores, p):
    keep = (scores.softmax(-1).cumsum(-1) < p).sum(-1, keepdim=True) + 1
    out = scores.clone()
    out[torch.arange(scores.shape[-1]) >= keep] = -torch.inf
    return out


def by_processors(settings):
    """What transformers makes of the same settings, in its order."""
    steps = [RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)]
    steps.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        steps.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    return LogitsProcessorList(steps)


def drawn_by_processors(logits, ids, settings, generator=None):
    if settings.temperature == 0:
        return penalised_by_processor(logits, ids, settings.repetition_penalty).argmax(-1)
    shares = by_processors(settings)(ids, logits.clone()).softmax(-1)
    return torch.multinomial(shares, 1, generator=generator).squeeze(1)


def drawn_in_the_vocabulary(logits, ids, settings, generator=None):
    """Never leaves the order of ids: thresholds in place of sorting, and noise in place of a draw."""
    scores = penalised_by_mask(logits.float(), ids, settings.repetition_penalty)
    if not settings.temperature:
        return scores.argmax(-1)
    scores = scores / settings.temperature
    if 0 < settings.top_k < scores.shape[-1]:
        least = scores.topk(settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    kept = nucleus_by_shift(scores.gather(1, order), settings.top_p)
    scores = torch.empty_like(scores).scatter(1, order, kept)
    noise = torch.rand(scores.shape, generator=generator).log().neg().log().neg()
    return (scores + noise).argmax(-1)


def drawn_by_inverse(logits, ids, settings, generator=None):
    """A number between 0 and 1 for each row, and the first token whose sum is beyond it."""
    scores = penalise_repetition(logits, ids, settings.repetition_penalty)
    if settings.temperature == 0:
        return scores.max(-1).indices
    ranked, order = (scores / settings.temperature).sort(dim=-1, descending=True)
    if settings.top_k:
        ranked = ranked[:, : settings.top_k]
    sums = nucleus_by_count(ranked, settings.top_p).softmax(-1).cumsum(-1)
    number = torch.rand(len(sums), 1, generator=generator) * sums[:, -1:]
    return order.gather(1, (sums <= number).sum(-1, keepdim=True))[:, 0]


def sampler_in_a_closure(settings):
    generator = torch.Generator()
    generator.seed() if settings.seed is None else generator.manual_seed(settings.seed)
    return lambda logits, ids: sample(logits, ids, settings, generator)


class SamplerInAClass:
    def __init__(self, settings):
        self.settings, self.generator = settings, torch.Generator()
        seed = settings.seed
        self.generator.manual_seed(torch.Generator().seed() if seed is None else seed)

    def __call__(self, logits, ids):
        return drawn_by_inverse(logits, ids, self.settings, self.generator)


RIGHT = [
    ("penalise_repetition", penalised_by_loop),
    ("penalise_repetition", penalised_by_mask),
    ("penalise_repetition", penalised_by_processor),
    ("keep_top_p", nucleus_by_loop),
    ("keep_top_p", nucleus_by_shift),
    ("keep_top_p", nucleus_by_count),
    ("sample", drawn_by_processors),
    ("sample", drawn_in_the_vocabulary),
    ("sample", drawn_by_inverse),
    ("mended_sampler", sampler_in_a_closure),
    ("mended_sampler", SamplerInAClass),
    ("mended_sampler", lambda settings: settings.sampler()),
    ("tail_share", lambda scores, kept: 1 - scores.softmax(-1).topk(kept).values.sum().item()),
    ("tail_share", lambda scores, kept: scores.softmax(-1).sort().values[:-kept].sum()),
    ("tail_share", lambda scores, kept: float(sum(sorted(scores.softmax(0).tolist())[:-kept]))),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("penalise_repetition", lambda s, ids, by: s, "wanted [1, -4, 1], got [2, -2, 1]"),
        ("penalise_repetition", lambda s, ids, by: s.mul_(2), "changed a tensor"),
        ("penalise_repetition", lambda s, ids, by: s[0], "float32 [3], and float32 [1, 3]"),
        ("keep_top_p", lambda s, p: s, "p = 0.8 keep three"),
        ("keep_top_p", lambda s, p: s.softmax(-1), "got [0.4, 0.3, 0.2, 0.1]"),
        ("sample", lambda s, ids, how, g=None: s, "wanted the ids [1, 0]"),
        ("sample", lambda s, ids, how: s.argmax(-1), "TypeError"),
        ("sample", lambda s, ids, how, g=None: s.argmax(-1)[:, None], "got int64 [2, 1]"),
        (
            "sample",
            lambda s, ids, how, g=None: s.argmax(-1).int(),
            "int32 [4000], and int64 [4000]",
        ),
        ("sample", mutants.penalty_when_greedy_alone, "top-p 1, and a penalty of 3 for token 1"),
        ("mended_sampler", lambda settings: 3, "a function was wanted"),
        ("tail_share", lambda s, kept: s, "one number was wanted"),
        ("tail_share", lambda s, kept: 0.5, "the best 2 leave 0.25, and yours says 0.5"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


@pytest.mark.parametrize(
    "settings",
    [
        CHAT_SAMPLING,
        Sampling(temperature=1.7),
        Sampling(temperature=0.3, top_k=3),
        Sampling(temperature=1.0, top_p=0.35),
        Sampling(repetition_penalty=1.3, temperature=2.5, top_k=30, top_p=0.95),
    ],
)
def test_each_step_keeps_what_transformers_keeps(settings):
    """Not by draws: the very probabilities, of 5,000 tokens and three texts."""
    generator = torch.Generator().manual_seed(5)
    scores_BV = 3 * torch.randn(3, 5000, generator=generator)
    ids_BT = torch.randint(5000, (3, 40), generator=generator)
    wanted_BV = by_processors(settings)(ids_BT, scores_BV.clone()).softmax(-1)

    mine = penalise_repetition(scores_BV, ids_BT, settings.repetition_penalty)
    ranked, order = (mine / settings.temperature).topk(settings.top_k or 5000, dim=-1)
    if settings.top_p < 1:  # at 1 the rounding of a long sum would drop some
        ranked = keep_top_p(ranked, settings.top_p)
    shares = ranked.softmax(-1)
    got_BV = torch.zeros_like(scores_BV).scatter(1, order, shares)
    assert ((got_BV > 0) == (wanted_BV > 0)).all()
    assert torch.allclose(got_BV, wanted_BV, atol=1e-6)
