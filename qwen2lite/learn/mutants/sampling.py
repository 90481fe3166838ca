"""Wrong versions of `penalise_repetition`, `keep_top_p` and `sample`, each a mistake somebody made."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from qwen2lite.infer.sample import Sampling, keep_top_p, penalise_repetition, sample


def divides_all(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """Negative scores are divided too, which brings them nearer to zero: what was to lose wins. A
    model of transformers wrote "dog dog dog dog" for it (#2302). Multiply those."""
    return scores_BV.scatter(1, ids_BT, scores_BV.gather(1, ids_BT) / penalty)


def once_an_occurrence(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """A token pays for each time that it occurred. It pays once: a comma that came thirty times would
    lose by a factor of 17 for a penalty of 1.1 (lattice #312)."""
    for place in range(ids_BT.shape[1]):
        scores_BV = penalise_repetition(scores_BV, ids_BT[:, place : place + 1], penalty)
    return scores_BV


def of_the_last_alone(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """Only the last token is lowered; all that have occurred are (CTranslate2 #615)."""
    return penalise_repetition(scores_BV, ids_BT[:, -1:], penalty)


def first_text_for_all(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """Every text of the batch is lowered at the tokens of the first. Each has a history of its own."""
    return penalise_repetition(scores_BV, ids_BT[:1].expand_as(ids_BT), penalty)


def subtracts(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """The penalty is subtracted. That is another one, the presence penalty of some services; this one
    divides and multiplies."""
    return scores_BV.scatter(1, ids_BT, scores_BV.gather(1, ids_BT) - penalty)


def all_but_the_seen(scores_BV: Tensor, ids_BT: Tensor, penalty: float) -> Tensor:
    """The tokens that have *not* occurred are lowered."""
    lowered = torch.where(scores_BV > 0, scores_BV / penalty, scores_BV * penalty)
    return lowered.scatter(1, ids_BT, scores_BV.gather(1, ids_BT))


def drops_the_crossing(scores: Tensor, p: float) -> Tensor:
    """The token that crosses p is dropped, so the rest has less than p, and where the first token alone
    is beyond p nothing is left. Keep what has less than p *before* it (llama.cpp #1953)."""
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities.cumsum(-1) > p, float("-inf"))


def one_too_many(scores: Tensor, p: float) -> Tensor:
    """Where p is reached exactly, one token more is kept. The fewest that reach p are enough
    (transformers #18976)."""
    probabilities = scores.softmax(-1)
    reached_before = probabilities.cumsum(-1) - probabilities
    return scores.masked_fill(reached_before > p, float("-inf"))


def one_minus_p(scores: Tensor, p: float) -> Tensor:
    """This keeps 1 − p in place of p, so that 0.9 is nearly greedy (magma #29)."""
    return keep_top_p(scores, 1 - p)


def each_above_p(scores: Tensor, p: float) -> Tensor:
    """Each probability by itself is compared with p. It is their sum, from the largest down, that has
    to reach it."""
    return scores.masked_fill(scores.softmax(-1) < p, float("-inf"))


def sums_scores(scores: Tensor, p: float) -> Tensor:
    """The scores are added up as they are. Only after a softmax are they shares that make 1."""
    reached_before = scores.cumsum(-1) - scores
    return scores.masked_fill(reached_before >= p, float("-inf"))


def zeroed(scores: Tensor, p: float) -> Tensor:
    """What is dropped gets the score 0, and e⁰ is 1: it stays in the game. Its score has to be minus
    infinity."""
    return keep_top_p(scores, p).nan_to_num(neginf=0.0)


def top_p_before_temperature(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """top-p is taken before the temperature, so it adds up other shares (transformers #8686; llama.cpp
    does it on purpose, #4091). Qwen2's settings were made for temperature, top-k, top-p."""
    if settings.temperature == 0:
        return sample(logits_BV, ids_BT, settings, generator)
    scores = penalise_repetition(logits_BV.float(), ids_BT, settings.repetition_penalty)
    count = min(settings.top_k or scores.shape[-1], scores.shape[-1])
    top, candidates = scores.topk(count, dim=-1)
    shares = (keep_top_p(top, settings.top_p) / settings.temperature).softmax(-1)
    drawn = torch.multinomial(shares, 1, generator=generator)
    return candidates.gather(1, drawn)[:, 0]


def top_p_before_top_k(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """top-p is taken of all tokens, and then the k best of that. With top-k first the shares of those k
    make 1, and fewer of them reach p."""
    if settings.temperature == 0:
        return sample(logits_BV, ids_BT, settings, generator)
    scores = penalise_repetition(logits_BV.float(), ids_BT, settings.repetition_penalty)
    ranked, candidates = (scores / settings.temperature).sort(dim=-1, descending=True)
    kept = keep_top_p(ranked, settings.top_p)[:, : settings.top_k or None]
    drawn = torch.multinomial(kept.softmax(-1), 1, generator=generator)
    return candidates.gather(1, drawn)[:, 0]


def rank_for_id(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """What comes back is the place in the sorted list. The id that stands there is meant: look it up in
    what `topk` or `sort` gives beside the values (PaLM-rlhf-pytorch #60)."""
    chosen = sample(logits_BV, ids_BT, settings, generator)
    if settings.temperature == 0:
        return chosen
    scores = penalise_repetition(logits_BV.float(), ids_BT, settings.repetition_penalty)
    order = scores.argsort(dim=-1, descending=True)
    return (order == chosen[:, None]).int().argmax(-1)


def multiplies_temperature(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """The scores are multiplied by the temperature. They are divided: a small one makes the
    differences larger, and the choice surer."""
    if settings.temperature == 0:
        return sample(logits_BV, ids_BT, settings, generator)
    upside_down = replace(settings, temperature=1 / settings.temperature)
    return sample(logits_BV, ids_BT, upside_down, generator)


def always_the_best(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """The likeliest is taken whatever the temperature. Above 0 it has to be drawn."""
    return sample(logits_BV, ids_BT, replace(settings, temperature=0.0), generator)


def never_greedy(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """A temperature of 0 divides by zero. It means the likeliest token, the limit of ever smaller
    temperatures, and needs a line of its own."""
    if settings.temperature > 0:
        return sample(logits_BV, ids_BT, settings, generator)
    scores = penalise_repetition(logits_BV.float(), ids_BT, settings.repetition_penalty)
    return torch.multinomial((scores / 0.0).softmax(-1), 1, generator=generator)[:, 0]


def penalty_after_the_filters(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """top-k and top-p choose first, and the penalty lowers what they left. A token that the penalty
    would have thrown out stays in, in the place of another: the penalty comes before everything."""
    if settings.temperature == 0:
        return sample(logits_BV, ids_BT, settings, generator)
    count = min(settings.top_k or logits_BV.shape[-1], logits_BV.shape[-1])
    ranked, order = (logits_BV.float() / settings.temperature).topk(count, dim=-1)
    left_out = torch.full(logits_BV.shape, float("-inf"))
    scores = left_out.scatter(1, order, keep_top_p(ranked, settings.top_p))
    scores = penalise_repetition(scores, ids_BT, settings.repetition_penalty)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]


def penalty_when_greedy_alone(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """The penalty is used at temperature 0 alone. It comes before the question whether to draw: where
    tokens are drawn, those that have occurred lose as well."""
    penalty = 1.0 if settings.temperature > 0 else settings.repetition_penalty
    return sample(logits_BV, ids_BT, replace(settings, repetition_penalty=penalty), generator)


def no_penalty(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """The repetition penalty is not used. It comes first, and when greedy as well."""
    return sample(logits_BV, ids_BT, replace(settings, repetition_penalty=1.0), generator)


def penalty_of_the_last_token(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """Only the last token pays the penalty. All that have occurred do: hand on the whole of ids_BT."""
    return sample(logits_BV, ids_BT[:, -1:], settings, generator)


def draws_once_for_all(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """One number is drawn for the whole batch, so equal texts go on equally. Each row draws."""
    return sample(logits_BV[:1], ids_BT[:1], settings, generator).expand(len(logits_BV))


def ignores_the_generator(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """The generator that was given is not used, so a seed repeats nothing: pass it to
    `torch.multinomial`."""
    another = torch.Generator()
    another.seed()
    return sample(logits_BV, ids_BT, settings, another)


def k_beyond_the_vocabulary(
    logits_BV: Tensor, ids_BT: Tensor, settings: Sampling, generator: Generator | None = None
) -> Tensor:
    """A top_k larger than the vocabulary is asked of `topk`, which refuses. All tokens are meant then
    (TransformerLens #1347)."""
    if settings.temperature > 0:
        logits_BV.topk(settings.top_k or logits_BV.shape[-1])
    return sample(logits_BV, ids_BT, settings, generator)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "penalise_repetition": (
        divides_all,
        once_an_occurrence,
        of_the_last_alone,
        first_text_for_all,
        subtracts,
        all_but_the_seen,
    ),
    "keep_top_p": (
        drops_the_crossing,
        one_too_many,
        one_minus_p,
        each_above_p,
        sums_scores,
        zeroed,
    ),
    "sample": (
        top_p_before_temperature,
        top_p_before_top_k,
        rank_for_id,
        multiplies_temperature,
        always_the_best,
        never_greedy,
        # These two before no_penalty, which draws the same where they are found out.
        penalty_after_the_filters,
        penalty_when_greedy_alone,
        no_penalty,
        penalty_of_the_last_token,
        draws_once_for_all,
        ignores_the_generator,
        k_beyond_the_vocabulary,
    ),
}
"""The wrong versions of each."""
