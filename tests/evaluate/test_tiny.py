"""data/qwen2-tiny has visibly learnt its small world: text, facts, and looking back."""

from itertools import islice
from pathlib import Path

import pytest

from qwen2lite import Qwen2, Qwen2Tokenizer, generate
from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.evaluate.ngram import NGram
from qwen2lite.evaluate.passkey import passkey_recall
from qwen2lite.evaluate.perplexity import perplexity
from qwen2lite.train.recipe import Recipe
from qwen2lite.train.story import HEROES
from qwen2lite.train.world import ATTRIBUTES, cloze, documents, people

ROOT = Path(__file__).parents[2]
TINY = ROOT / "data" / "qwen2-tiny"


@pytest.fixture(scope="module")
def model():
    return Qwen2.from_pretrained(TINY, device="cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen2Tokenizer.from_pretrained(TINY)


def corpus(tokenizer, seed, number):
    """Documents as one row of ids. Only seed 0 was trained on."""
    end = tokenizer.special_tokens["<|endoftext|>"]
    encoded = (tokenizer.encode(text) for text in islice(documents(seed), number))
    return [token for ids in encoded for token in [*ids, end]]


def test_it_is_the_model_of_the_recipe_and_small(model):
    assert model.config.hidden_size == Recipe.from_toml(ROOT / "runs/tiny.toml").config.hidden_size
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 4_000_000


def test_text_it_has_never_seen_surprises_it_less_than_counting_does(model, tokenizer):
    train, held_out = corpus(tokenizer, 0, 12_000), corpus(tokenizer, 7, 300)
    mine = perplexity(model, held_out, length=256)
    unigram, five = (NGram(train, n, len(tokenizer.vocabulary.tokens) + 3).perplexity(held_out)
                     for n in (1, 5))  # fmt: skip
    assert unigram > 100 and five < unigram / 20, "the peers are good at what they do"
    assert mine < five / 1.8 and mine < 1.9


@pytest.mark.parametrize("held_out", [False, True])
def test_it_knows_the_facts_of_the_world_in_words_it_has_never_read(model, tokenizer, held_out):
    questions = [cloze(person, a, held_out) for person in people() for a in ATTRIBUTES]
    right = exact_match(model, tokenizer, questions)
    assert len(right) == 1000 and sum(right) / len(right) >= 0.95
    swapped = [(prompt, other) for (prompt, _), (_, other) in zip(
        questions, questions[5:] + questions[:5], strict=True)]  # fmt: skip
    assert sum(exact_match(model, tokenizer, swapped)) / len(right) < 0.2, "its neighbour's facts"


def test_it_finds_a_key_anywhere_within_the_trained_length(model, tokenizer):
    grid = passkey_recall(model, tokenizer, [64, 128, 192, 256], tries=8)
    found = [share for row in grid for share in row]
    assert sum(found) / len(found) >= 0.95


def test_it_tells_a_story_about_one_who_was_in_its_world(model, tokenizer):
    text = "".join(generate(model, tokenizer, "One sunny morning", max_new_tokens=80))
    assert any(hero in text for hero in HEROES)
    assert text.strip().endswith((".", '"')) or len(text) > 200
