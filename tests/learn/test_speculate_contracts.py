"""The tasks of lesson 85 accept every right answer, and say in a sentence what is wrong."""

import itertools

import pytest
import torch

from tests.learn.verdict import verdict


def closed_form(share, length):
    return length + 1 if share == 1 else (1 - share ** (length + 1)) / (1 - share)


def by_recursion(share, length):
    return 1 + share * by_recursion(share, length - 1) if length else 1


def by_probabilities(share, length):
    ends = sum((n + 1) * share**n * (1 - share) for n in range(length))
    return ends + (length + 1) * share**length


def accepted_by_loop(guesses, chosen):
    written = []
    for guess, token in itertools.zip_longest(guesses, chosen):
        written.append(token)
        if guess != token:
            break
    return written


def accepted_by_takewhile(guesses, chosen):
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(guesses, chosen, strict=False))
    kept = [guess for guess, _ in pairs]
    return [*kept, chosen[len(kept)]]


def accepted_by_prefix(guesses, chosen):
    sizes = [n for n in range(len(guesses) + 1) if guesses[:n] == chosen[:n]]
    return chosen[: max(sizes) + 1]


def length_as_before(model, guess, prompt_ids, count, length):
    ids, cache = list(prompt_ids), model.new_cache(len(prompt_ids) + count + length + 1)
    model(torch.tensor([ids[:-1]]), cache)
    while len(ids) - len(prompt_ids) < count:
        before, draft = cache.length, []
        for _ in range(length):
            draft.append(guess([*ids, *draft]))
        chosen = model(torch.tensor([[ids[-1], *draft]]), cache)[0].argmax(-1).tolist()
        kept = accepted_by_loop(draft, chosen)
        ids += kept
        cache.length = before + len(kept)
    return ids[len(prompt_ids) : len(prompt_ids) + count]


def wound_back_before_it_reads(model, guess, prompt_ids, count, length):
    ids, cache = list(prompt_ids), model.new_cache(50)
    model(torch.tensor([ids[:-1]]), cache)
    while len(ids) < len(prompt_ids) + count:
        cache.length = len(ids) - 1
        draft = list(ids)
        for _ in range(length):
            draft += [guess(draft)]
        logits_BTV = model(torch.tensor([draft[cache.length :]]), cache)
        ids += accepted_by_takewhile(draft[len(ids) :], logits_BTV.argmax(-1)[0].tolist())
    return ids[len(prompt_ids) :][:count]


def rejected_taken_off(model, guess, prompt_ids, count, length):
    ids, written = list(prompt_ids), []
    cache = model.new_cache(50)
    model(torch.tensor([ids[:-1]]), cache)
    while len(written) < count:
        guesses = []
        while len(guesses) < length:
            guesses.append(guess(ids + written + guesses))
        step = torch.tensor([[(ids + written)[-1], *guesses]])
        chosen = model(step, cache)[0].argmax(-1).tolist()
        kept = accepted_by_prefix(guesses, chosen)
        written += kept
        cache.length -= length + 1 - len(kept)
    return written[:count]


def drafted_in_full(score, guess, choose, prompt_ids, count, length):
    ids, written = list(prompt_ids), []
    while len(written) < count:
        draft = list(ids)
        for _ in range(length):
            draft.append(guess(draft))
        logits_TV, start = score(draft), len(ids)
        for place in range(start, len(draft) + 1):
            token = choose(logits_TV[place - 1])
            ids.append(token)
            written.append(token)
            if len(written) == count or place == len(draft) or draft[place] != token:
                break
    return written


def drafted_recursively(score, guess, choose, prompt_ids, count, length):
    if count <= 0:
        return []
    guesses = []
    for _ in range(min(length, count - 1)):
        guesses.append(guess(prompt_ids + guesses))
    written = []
    rows = score(prompt_ids + guesses)[-len(guesses) - 1 :]
    for guessed, row in zip([*guesses, None], rows, strict=True):
        written.append(choose(row))
        if written[-1] != guessed:
            break
    rest = (prompt_ids + written, count - len(written), length)
    return written + drafted_recursively(score, guess, choose, *rest)


def drafted_by_generator(score, guess, choose, prompt_ids, count, length):
    def tokens():
        text = list(prompt_ids)
        while True:
            draft = []
            while len(draft) < length:
                draft.append(guess(text + draft))
            right = True
            rows = iter(score(text + draft)[len(text) - 1 :])
            for guessed in [*draft, -1]:
                if right:
                    token = choose(next(rows))
                    text.append(token)
                    yield token
                    right = token == guessed

    return list(itertools.islice(tokens(), count))


def length_by_strings(right, ratio, lengths):
    text = "".join("+" if one else "-" for one in right)

    def seconds(length):
        left, total = text, 0.0
        while left:
            head = left[:length]
            kept = len(head) - len(head.lstrip("+"))
            left, total = left[kept + 1 :], total + 1 + length * ratio
        return total

    return min(lengths, key=seconds)


def length_by_recursion(right, ratio, lengths):
    def steps(place, length):
        if place >= len(right):
            return 0
        kept = 0
        while kept < length and right[place + kept : place + kept + 1] == [True]:
            kept += 1
        return 1 + steps(place + kept + 1, length)

    return sorted(lengths, key=lambda length: steps(0, length) * (1 + length * ratio))[0]


def length_token_by_token(right, ratio, lengths):
    times = {}
    for length in lengths:
        steps, left = 0, 0
        for one in right:
            if not left:
                steps, left = steps + 1, length + 1
            left = left - 1 if one else 0
        times[length] = steps + steps * length * ratio
    return min(times, key=times.get)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tokens_a_step", closed_form),
        ("tokens_a_step", by_recursion),
        ("tokens_a_step", by_probabilities),
        ("accepted", accepted_by_loop),
        ("accepted", accepted_by_takewhile),
        ("accepted", accepted_by_prefix),
        ("mended_drafting", length_as_before),
        ("mended_drafting", wound_back_before_it_reads),
        ("mended_drafting", rejected_taken_off),
        ("drafted_text", drafted_in_full),
        ("drafted_text", drafted_recursively),
        ("drafted_text", drafted_by_generator),
        ("best_length", length_by_strings),
        ("best_length", length_by_recursion),
        ("best_length", length_token_by_token),
    ],
)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def one_run_a_token(model, guess, prompt_ids, count, length):
    ids = list(prompt_ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt_ids) :]


def all_read_again(model, guess, prompt_ids, count, length):
    ids = list(prompt_ids)
    while len(ids) < len(prompt_ids) + count:
        draft = list(ids)
        for _ in range(length):
            draft.append(guess(draft))
        chosen = model(torch.tensor([draft]))[0, len(ids) - 1 :].argmax(-1).tolist()
        ids += accepted_by_loop(draft[len(ids) :], chosen)
    return ids[len(prompt_ids) :][:count]


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("tokens_a_step", lambda *_: "2", "a number was wanted"),
        ("tokens_a_step", lambda a, g: (1 - a ** (g + 1)) / (1 - a), "ZeroDivisionError"),
        ("accepted", lambda guesses, chosen: tuple(chosen[:3]), "a list of ids was wanted"),
        (
            "accepted",
            lambda guesses, chosen: [5],
            "Then [5, 7, 9] is written, and yours writes [5]",
        ),
        ("accepted", lambda guesses, chosen: guesses.pop() and chosen[:3], "changed a list"),
        ("mended_drafting", lambda *_: 3, "a list of ids was wanted"),
        ("mended_drafting", lambda *_: [3], "12 tokens were wanted, and 1 came"),
        ("mended_drafting", one_run_a_token, "and in yours 12 times"),
        ("mended_drafting", all_read_again, "tokens in all, and in yours"),
        ("drafted_text", lambda *_: list(range(10)), "they part at token 1"),
        ("best_length", lambda *_: 2.5, "a whole number was wanted"),
        ("best_length", lambda *_: 4, "is 12, and yours says 4"),
        ("best_length", lambda *_: 5, "is 12, and yours says 5, which takes 22.5 steps' time"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_a_closed_form_is_told_why_it_divides_by_zero():
    result = verdict("tokens_a_step", lambda a, g: (1 - a ** (g + 1)) / (1 - a))
    assert "The sum of the powers is length + 1" in result.reason
