"""The measures by hand, and against slower ways to the same number."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2Tokenizer
from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.evaluate.ngram import NGram
from qwen2lite.evaluate.passkey import passkey_recall, resumable_recall
from qwen2lite.evaluate.perplexity import perplexity, token_losses
from qwen2lite.text.vocabulary import vocabulary_of
from tests.evaluate.small import small

TOKENIZER = Qwen2Tokenizer(vocabulary_of([(b" ", b"t"), (b"1", b"2")]))


@pytest.fixture(scope="module")
def model():
    return small(261)


def greedy(model, prompt, number):
    ids = TOKENIZER.encode(prompt)
    for _ in range(number):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-number:]


def test_an_answer_is_right_where_greedy_decoding_writes_it(model):
    prompts = [f"{number} {'word ' * (number % 7)}x" for number in range(40)]
    written = [greedy(model, prompt, 3) for prompt in prompts]
    texts = [TOKENIZER.decode(ids, errors="replace") for ids in written]
    stable = [n for n, ids in enumerate(written) if TOKENIZER.encode(texts[n]) == ids]
    assert len(stable) > 5
    questions = [(prompts[n], texts[n]) for n in stable]
    assert all(exact_match(model, TOKENIZER, questions))
    for place in range(3):
        off = []
        for n in stable:
            ids = list(written[n])
            ids[place] = 7 if ids[place] != 7 else 8
            off.append((prompts[n], TOKENIZER.decode(ids)))
        wrong = [
            q for q, n in zip(off, stable, strict=True) if TOKENIZER.encode(q[1]) != written[n]
        ]
        assert wrong and not any(exact_match(model, TOKENIZER, wrong))


def test_neighbours_in_a_batch_change_nothing(model):
    questions = [("a" * (1 + 13 * (n % 5)), "b" * (1 + n % 3)) for n in range(30)]
    together = exact_match(model, TOKENIZER, questions)
    assert together == [exact_match(model, TOKENIZER, [q])[0] for q in questions]


@pytest.mark.parametrize("question", [("", "x"), ("x", "")])
def test_a_question_without_a_token_is_refused(model, question):
    with pytest.raises(ValueError, match="need a token each"):
        exact_match(model, TOKENIZER, [question])


def test_losses_are_those_of_each_window_alone(model):
    ids = torch.randint(261, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    losses = token_losses(model, ids, 12)
    assert losses.shape == (4, 11)
    with torch.no_grad():
        for row, start in enumerate(range(0, 48, 12)):
            window = ids[start : start + 12]
            logp = model(torch.tensor([window]))[0].log_softmax(-1)
            wanted = [-float(logp[t, after]) for t, (_, after) in enumerate(pairwise(window))]
            assert losses[row].tolist() == pytest.approx(wanted, abs=1e-5)
    assert perplexity(model, ids, 12) == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)
    assert token_losses(model, ids, 2).shape == (25, 1)
    for length in (1, 51):
        with pytest.raises(ValueError, match=f"50 tokens give no window of {length},"):
            token_losses(model, ids, length)
    assert token_losses(small(261).to(torch.bfloat16), ids, 12).dtype == torch.float32


def test_ids_of_another_vocabulary_are_named(model):
    with pytest.raises(ValueError, match="outside the vocabulary"):
        token_losses(model, [1, 2, model.config.vocab_size, 3], 4)
    larger = Qwen2Tokenizer(vocabulary_of([(b" ", b"t"), (b"1", b"2"), (b"x", b"y")]))
    with pytest.raises(ValueError, match="token id 261 is outside the vocabulary"):
        exact_match(model, larger, [("<|im_end|>", "x")])


def test_a_bigram_by_hand():
    # a b a b a c: after a came b twice and c once, two kinds; after b came a twice, one kind.
    ids = [0, 1, 0, 1, 0, 2]
    model = NGram(ids, 2, vocab_size=4)
    single = (2 + 3 / 4) / (6 + 3)  # b: 2 of 6 tokens, 3 kinds of them, and 1/4 below
    assert model.probability((), 1) == pytest.approx(single)
    assert model.probability((0,), 1) == pytest.approx((2 + 2 * single) / (3 + 2))
    assert model.probability((9, 0), 1) == model.probability((0,), 1), "one token of history"
    assert model.probability((3,), 1) == pytest.approx(single), "a history never seen"
    likely = model.probability((), 0) * model.probability((0,), 1) * model.probability((1,), 0)
    assert model.perplexity([0, 1, 0]) == pytest.approx(likely ** (-1 / 3))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 5), st.data())
def test_probabilities_add_up_to_one(ids, order, data):
    history = tuple(data.draw(st.lists(st.integers(0, 5), max_size=6)))
    model = NGram(ids, order, vocab_size=6)
    assert sum(model.probability(history, t) for t in range(6)) == pytest.approx(1)


def test_counting_more_explains_the_text_it_counted_better():
    ids = [n * n % 7 for n in range(300)]
    scores = [NGram(ids, order, 7).perplexity(ids) for order in (1, 2, 3)]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 7
    with pytest.raises(ValueError, match="order 1 or above"):
        NGram(ids, 0, 7)
    with pytest.raises(ValueError, match="without a token"):
        NGram(ids, 2, 7).perplexity([])


def test_a_model_that_knows_nothing_finds_no_key(model):
    grid = passkey_recall(model, TOKENIZER, [160, 240], depths=(0.0, 1.0), tries=3)
    assert grid == [[0.0, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="needs"):
        passkey_recall(model, TOKENIZER, [20])


@pytest.fixture
def counted(monkeypatch):
    """Cells that are measured, by length and depth; each finds a share that depends on its keys."""
    measured = []

    def share(model, tokenizer, questions):
        measured.append(questions)
        return [int(answer[-1]) % 2 == 0 for _, answer in questions]

    monkeypatch.setattr("qwen2lite.evaluate.passkey.exact_match", share)
    return measured


def test_a_stopped_grid_goes_on_where_it_was(tmp_path, counted):
    sizes = ([160, 240], (0.0, 0.5, 1.0), 5)

    def grid(file, lengths=sizes[0]):
        file = tmp_path / file
        return resumable_recall(
            None, TOKENIZER, lengths, *sizes[1:], file=file, name="a", bar=False
        )

    whole = grid("whole.jsonl")
    assert len(counted) == 6 and len({str(questions) for questions in counted}) == 6
    shares = [sum(int(answer[-1]) % 2 == 0 for _, answer in asked) / 5 for asked in counted]
    assert whole == [shares[:3], shares[3:]] and max(shares) > 0
    assert grid("whole.jsonl") == whole and len(counted) == 6, "nothing is measured twice"
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    for kept in ("".join(lines[:4]), "".join(lines[:2]) + lines[2][:20]):
        (tmp_path / "cut.jsonl").write_text(kept)
        before, there = len(counted), kept.count("\n")
        assert grid("cut.jsonl") == whole and len(counted) - before == 6 - there
        assert (tmp_path / "cut.jsonl").read_text() == "".join(lines)
    assert grid("later.jsonl", [240]) == whole[1:], "a cell doesn't depend on those before it"


def test_models_share_a_file_under_their_names(tmp_path, counted):
    file = tmp_path / "grid.jsonl"
    for name, seed in (("a", 0), ("b", 0), ("a", 1), ("a", 0)):
        resumable_recall(None, TOKENIZER, [160], (0.0,), 5, seed, file=file, name=name, bar=False)
    assert len(counted) == 3 and len(file.read_text().splitlines()) == 3
    file.write_text("{}\n")
    with pytest.raises(ValueError, match="name another file"):
        resumable_recall(None, TOKENIZER, [160], file=file, bar=False)


def test_losses_scored_in_pieces_are_those_of_the_whole(model, monkeypatch):
    ids = [n * n % 250 for n in range(60)]
    want = token_losses(model, ids, 20)
    for piece in (1, 7, 19, 20):
        monkeypatch.setattr("qwen2lite.evaluate.perplexity._SCORED_AT_ONCE", piece)
        assert torch.allclose(token_losses(model, ids, 20), want, atol=1e-5)
