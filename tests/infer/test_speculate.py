"""Speculative decoding writes the model's own tokens, whoever guesses."""

import dataclasses
import itertools
import operator

import pytest
import torch

from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.products import NarrowLinear, TileLinear
from qwen2lite.infer.quantized_products import Int4Linear
from qwen2lite.infer.sample import Sampling
from qwen2lite.infer.speculate import Draft, speculate_ids
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2

CONFIG = Qwen2Config(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=80,
    initializer_range=0.3,
)  # fmt: skip
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def a_model(seed: int, config: Qwen2Config = CONFIG) -> Qwen2:
    torch.manual_seed(seed)
    return Qwen2(config).eval()


@pytest.fixture(scope="module")
def model():
    return a_model(0)


@pytest.fixture(scope="module")
def nearly(model):
    """The model with a little noise on its weights: most of its guesses are right."""
    other = a_model(1)
    with torch.no_grad():
        for mine, true in zip(other.parameters(), model.parameters(), strict=True):
            mine.copy_(true + 0.01 * torch.randn_like(true))
    return other


class Counted:
    """Passes on to a model, and counts how often it is run."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, *arguments, **named):
        self.runs += 1
        return self.model(*arguments, **named)


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.5, top_k=10, top_p=0.9, seed=5),
    Sampling(repetition_penalty=1.3),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "drawn", "penalised"])
@pytest.mark.parametrize("most", [1, 3, 16])
def test_the_tokens_are_the_models_whoever_guesses(model, nearly, settings, most):
    want = list(generate_ids(model, PROMPT, 40, settings.sampler()))
    chooser = dataclasses.replace(settings, temperature=0).sampler()
    for guesser in (nearly, a_model(2), model):
        draft = Draft(guesser, most, least_sure=0.05, chooser=chooser)
        got = list(speculate_ids(model, PROMPT, 40, settings.sampler(), draft=draft))
        assert got == want


def test_right_guesses_save_steps_and_wrong_ones_cost_none(model, nearly):
    runs = {}
    for name, guesser in {"itself": model, "nearly": nearly, "another": a_model(2)}.items():
        counted = Counted(model)
        draft = Draft(guesser, most=4, least_sure=0)
        assert len(list(speculate_ids(counted, PROMPT, 40, draft=draft))) == 40
        runs[name] = counted.runs
    assert runs["itself"] == 1 + 8, "the prompt gives one token, and then each step gives five"
    assert runs["itself"] < runs["nearly"] < 25 < runs["another"] <= 40


def test_an_unsure_draft_ends_early(model):
    counted = Counted(model)
    list(speculate_ids(model, PROMPT, 30, draft=Draft(counted, most=16, least_sure=1.0)))
    assert counted.runs <= 29, "a single guess a step"


@torch.inference_mode()
def test_a_draft_ends_with_the_guess_that_makes_it_unsure(model):
    """Sure is the product of the guesses' probabilities; the chooser sees the text and the guesses."""
    written = list(itertools.islice(generate_ids(model, PROMPT), 6))
    logits_BTV = model(torch.tensor([PROMPT + written]))
    chances = [float(logits_BTV[0, 7 + i].softmax(-1)[token]) for i, token in enumerate(written)]
    sure, lengths = list(itertools.accumulate(chances, operator.mul, initial=1.0)), []
    assert all(chance < 0.99 for chance in chances)

    def choose(logits_BV, history_BT):
        lengths.append(history_BT.shape[1])
        return logits_BV.argmax(-1)

    for number in range(1, 7):
        cache, ids_BS = model.new_cache(40), torch.zeros(1, 40, dtype=torch.long)
        ids_BS[0, :8] = torch.tensor(PROMPT)
        model(ids_BS[:, :7], cache)
        draft = Draft(model, 9, (sure[number - 1] + sure[number]) / 2, choose)
        lengths.clear()
        assert draft.guess(ids_BS, 8, cache) == number
        assert lengths == list(range(8, 8 + number))


def test_stop_tokens_end_the_text_inside_a_draft(model):
    free = list(generate_ids(model, PROMPT, 40))
    for stop in set(free):
        got = list(speculate_ids(model, PROMPT, 40, eos_ids={stop}, draft=Draft(model, 7, 0)))
        assert got == free[: free.index(stop)]


def test_the_text_ends_where_it_should(model):
    for count in (1, 2, 5, 72, 500):
        got = list(speculate_ids(model, PROMPT, count, draft=Draft(model, 7, 0)))
        assert got == list(generate_ids(model, PROMPT, count)) and len(got) == min(count, 72)


@pytest.mark.parametrize(
    ("prompt", "says"), [([], "empty"), ([1] * 80, "has 80 tokens"), ([1, 128], "id 128")]
)
def test_prompts_that_cannot_be_continued(model, prompt, says):
    with pytest.raises(ValueError, match=says):
        next(speculate_ids(model, prompt, draft=Draft(model)))


@pytest.mark.parametrize("linear", [TileLinear, NarrowLinear], ids=["tiles", "narrow"])
def test_four_bits_guess_for_packed_models(model, linear):
    narrow = a_model(0).to(torch.bfloat16)
    draft = PackedQwen2(narrow, Int4Linear)
    for true in (PackedQwen2(narrow, linear), narrow, model):
        steps = Counted(true)
        tokens = speculate_ids(steps, PROMPT, 24, draft=Draft(draft, least_sure=0.01))
        assert len(list(tokens)) == 24 and steps.runs < 20


def test_the_cache_is_given_back_as_long_as_it_was(model, nearly):
    cache, ids_BS = model.new_cache(40), torch.zeros(1, 40, dtype=torch.long)
    ids_BS[0, :8] = torch.tensor(PROMPT)
    with torch.inference_mode():
        model(ids_BS[:, :7], cache)
        draft = Draft(nearly, most=5, least_sure=0)
        assert draft.guess(ids_BS, 8, cache) == 5 and cache.length == 7
        want = list(itertools.islice(generate_ids(nearly, PROMPT), 5))
        assert sum(a == b for a, b in zip(ids_BS[0, 8:13].tolist(), want, strict=True)) >= 3
        assert draft.guess(ids_BS, 39, cache) == 0 and draft.guess(ids_BS, 40, cache) == 0
