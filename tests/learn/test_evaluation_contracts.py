"""The contracts of lesson 75's tasks accept every right answer and tell wrong ones clearly."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qwen2lite.evaluate import choice, contamination, uncertainty
from qwen2lite.evaluate.contamination import CleanScore
from qwen2lite.evaluate.generated import last_number
from qwen2lite.evaluate.uncertainty import Paired
from qwen2lite.learn.mutants import evaluation, evaluation_numbers, evaluation_tasks
from qwen2lite.learn.mutants import evaluation_uncertainty as sure
from tests.learn.verdict import verdict

ALL = evaluation.MUTANTS | evaluation_numbers.MUTANTS | evaluation_tasks.MUTANTS | sure.MUTANTS
PACKAGE = {
    "few_shots": choice.few_shots,
    "choice_prompt": choice.choice_prompt,
    "clean_score": contamination.clean_score,
    "wilson": uncertainty.wilson,
    "paired": uncertainty.paired,
}


def logp_by_rows(logits_TV, prompt, option):
    rows = torch.arange(len(option)) + len(prompt) - 1
    return float(logits_TV.float().log_softmax(-1)[rows, list(option)].sum())


def logp_by_loop(logits_TV, prompt, option):
    total, read = 0.0, list(prompt)
    for token in option:
        row_V = logits_TV[len(read) - 1].double()
        total += float(row_V[token] - row_V.logsumexp(0))
        read.append(token)
    return total


def logp_by_cross_entropy(logits_TV, prompt, option):
    begin = len(prompt) - 1
    asked = logits_TV[begin : begin + len(option)].float()
    return -F.cross_entropy(asked, torch.tensor(option), reduction="sum")


def logp_by_gather(logits_TV, prompt, option):
    whole = torch.tensor([*prompt, *option])
    logp_TV = logits_TV.float().log_softmax(dim=-1)[: len(whole) - 1]
    return logp_TV.gather(1, whole[1:, None])[len(prompt) - 1 :].sum()


def picked_by_lengths(by, choices, tokens, logps, alone):
    if by == "unconditional":
        values = [given - without for given, without in zip(logps, alone, strict=True)]
    else:
        utf8_bytes = [len(f" {choice}".encode()) for choice in choices]
        lengths = {"sum": [1] * len(choices), "token": tokens, "byte": utf8_bytes}[by]
        values = [logp / length for logp, length in zip(logps, lengths, strict=True)]
    return values.index(max(values))


def picked_by_tensors(by, choices, tokens, logps, alone):
    values = torch.tensor(logps, dtype=torch.float64)
    if by == "token":
        values = values / torch.tensor(tokens)
    if by == "byte":
        values = values / torch.tensor([1 + len(choice.encode("utf-8")) for choice in choices])
    if by == "unconditional":
        values = values - torch.tensor(alone, dtype=torch.float64)
    return values.argmax()


def picked_by_numpy(by, choices, tokens, logps, alone):
    bytes_ = [len((" " + choice).encode()) for choice in choices]
    divided = {"sum": 1, "token": np.array(tokens), "byte": np.array(bytes_), "unconditional": 1}
    less = np.array(alone) * (by == "unconditional")
    return np.argmax((np.array(logps) - less) / divided[by])


def picked_by_loop(by, choices, tokens, logps, alone):
    best, most = -1, -math.inf
    for i, text in enumerate(choices):
        value = logps[i]
        if by == "token":
            value /= tokens[i]
        elif by == "byte":
            value /= len(text.encode()) + 1
        elif by == "unconditional":
            value -= alone[i]
        if value > most:
            best, most = i, value
    return best


def shots_by_loop(question, examination, count):
    shots = []
    for other in examination:
        if len(shots) < count and other.subject == question.subject and other != question:
            shots.append(other)
    if len(shots) < count:
        raise ValueError("too few")
    return shots


def shots_by_filter(question, examination, count):
    same = filter(lambda other: other.subject == question.subject, examination)
    others = tuple(other for other in same if question != other)
    if len(others) < count:
        raise ValueError(f"only {len(others)}")
    return others[:count]


def prompt_by_adding(question, shots=()):
    text = "Multiple choice questions"
    if question.subject:
        text += f" about {question.subject}"
    text += ", with answers.\n\n"
    for number, asked in enumerate([*shots, question], 1):
        text += asked.question + "\n"
        for letter, option in zip("ABCD", asked.choices, strict=False):
            text += f"{letter}. {option}\n"
        text += "Answer:"
        if number <= len(shots):
            text += " " + "ABCD"[asked.answer] + "\n\n"
    return text


def number_by_groups(text):
    found = re.findall(r"((?:(?<![\d)])-)?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?", text)
    if not found:
        return None
    sign, whole, rest = found[-1]
    return float(sign + whole.replace(",", "") + rest)


def number_by_walking(text):
    """From the end backwards, without a pattern."""
    end = len(text)
    while end and not text[end - 1].isdigit():
        end -= 1
    if not end:
        return None
    begin = end
    while begin and (
        text[begin - 1].isdigit()
        or (begin < end and text[begin - 1] == "." and text[begin - 2].isdigit())
        or (text[begin - 1] == "," and text[begin - 2].isdigit() and _three(text[begin:end]))
    ):
        begin -= 1
    is_sign = text[begin - 1 : begin] == "-" and not re.match(r"[\d)]", text[begin - 2 : begin - 1])
    value = float(text[begin:end].replace(",", ""))
    return -value if is_sign else value


def _three(behind):
    return bool(re.match(r"\d{3}(?!\d)", behind))


def wilson_by_solving(right, total, confidence=0.95):
    """The two roots of (p̂ - p)² = z² p (1 - p) / n."""
    if not 0 <= right <= total or total == 0 or not 0 < confidence < 1:
        raise ValueError("counts")
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / total
    share = right / total
    return tuple(sorted(np.roots([1 + z2, -(2 * share + z2), share**2]).real))


def wilson_with_196(right, total, confidence=0.95):
    """Rounded tables of z are near enough, and a list will do."""
    if total < 1 or right < 0 or right > total or confidence <= 0 or confidence >= 1:
        raise ValueError("counts")
    z = {0.95: 1.96, 0.8: 1.28155, 0.99: 2.57583}[confidence]
    low = (right + z * z / 2) / (total + z * z)
    reach = z / (total + z * z) * math.sqrt(right * (total - right) / total + z * z / 4)
    return [low - reach, low + reach]


def paired_by_fractions(first, second):
    if not first or len(first) != len(second):
        raise ValueError("other questions")
    a = sum(x and not y for x, y in zip(first, second, strict=True))
    b = sum(y and not x for x, y in zip(first, second, strict=True))
    rows = [Fraction(math.comb(a + b, i), 2 ** (a + b)) for i in range(a + b + 1)]
    return Paired(
        a, b, float(sum(p for i, p in enumerate(rows) if abs(2 * i - a - b) >= abs(a - b)))
    )


def paired_by_numpy(first, second):
    if len(first) != len(second) or len(first) == 0:
        raise ValueError("other questions")
    x, y = np.array(first), np.array(second)
    a, b = int((x & ~y).sum()), int((y & ~x).sum())
    tail = sum(math.comb(a + b, i) for i in range(min(a, b) + 1)) * 0.5 ** (a + b)
    return Paired(a, b, 1.0 if a == b else 2 * tail)


def clean_by_sets(right, contaminated):
    asked = set(range(len(right)))
    if not asked or contaminated - asked:
        raise ValueError("numbers")
    clean = asked - contaminated
    hits = {n for n in asked if right[n]}
    share = len(hits & clean) / len(clean) if clean else None
    return CleanScore(len(hits) / len(asked), len(contaminated) / len(asked), share)


RIGHT = [
    ("option_logp", logp_by_rows),
    ("option_logp", logp_by_loop),
    ("option_logp", logp_by_cross_entropy),
    ("option_logp", logp_by_gather),
    ("picked_option", picked_by_lengths),
    ("picked_option", picked_by_tensors),
    ("picked_option", picked_by_numpy),
    ("picked_option", picked_by_loop),
    ("few_shots", shots_by_loop),
    ("few_shots", shots_by_filter),
    ("choice_prompt", prompt_by_adding),
    ("mended_number", lambda text: evaluation_numbers.last(evaluation_numbers._RIGHT, text)),
    ("mended_number", number_by_groups),
    ("mended_number", number_by_walking),
    ("mended_number", lambda text: last_number(text)),
    ("wilson", wilson_by_solving),
    ("wilson", wilson_with_196),
    ("paired", paired_by_fractions),
    ("paired", paired_by_numpy),
    ("clean_score", clean_by_sets),
    *((name, lambda *x, part=part: part(*x)) for name, part in PACKAGE.items()),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize("name", sorted(PACKAGE))
def test_the_packages_own_passes(name):
    result = verdict(name, PACKAGE[name])
    assert result.state == "right"
    assert "package's own" in result.note


def unparted(question, shots=()):
    return prompt_by_adding(question, shots).replace("\n\n", "\n")


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("option_logp", lambda x, p, o: x, "returned float32 [5, 3]; one number was wanted"),
        ("option_logp", lambda x, p, o: None, "returned None"),
        ("option_logp", lambda x, p, o: True, "one number was wanted"),
        ("option_logp", lambda x, p: 0.0, "TypeError"),
        ("option_logp", lambda x, p, o: -1.0, "ln p is -2.3026, and yours is -1.0000"),
        ("option_logp", lambda x, p, o: logp_by_rows(x.sub_(1), p, o), "changed a tensor"),
        ("option_logp", lambda x, p, o: logp_by_rows(x, p, [o.pop()]), "changed a list"),
        ("option_logp", lambda x, p, o: x[9].sum(), "IndexError"),
        ("picked_option", lambda *x: 1.0, "returned 1.0 for 3 options; a whole number from 0 to 2"),
        ("picked_option", lambda *x: True, "returned True for 3 options"),
        ("picked_option", lambda *x: "blue", "a whole number from 0 to 2 was wanted"),
        (
            "picked_option",
            lambda by, *x: {"sum": 1}[by],
            "(-1.0, -1.0, -1.0) the option 0 is taken",
        ),
        ("picked_option", lambda by, *x: [][0], "IndexError"),
        ("few_shots", lambda q, e, n: 3, "returned 3; a list of questions was wanted"),
        ("few_shots", lambda q, e, n: ["a", "b"], "returned ['a', 'b']; a list of questions"),
        ("few_shots", lambda q, e, n: (x for x in e), "a list of questions was wanted"),
        (
            "few_shots",
            lambda q, e, n: [],
            "2 shots for 'What is blue?': [What is hot?, What is cold?] was wanted, and you gave []",
        ),
        (
            "few_shots",
            lambda q, e, n: evaluation.too_few_accepted(q, e, n),
            "it returned [What is hot?, What is cold?, What is grey?], and should raise",
        ),
        ("choice_prompt", lambda q, s: 3, "returned 3; a text was wanted"),
        (
            "choice_prompt",
            lambda q, s: "",
            "After '', 'Multiple cho' was wanted, and yours has the end",
        ),
        (
            "choice_prompt",
            lambda q, s: prompt_by_adding(q, s) + ".",
            "the end was wanted, and yours has '.'",
        ),
        ("choice_prompt", unparted, "r, with answers.\\n', '\\nWhat is blu' was wanted"),
        ("mended_number", lambda text: "7", "returned '7'; a number was wanted, or None"),
        ("mended_number", lambda text: text.isdigit(), "returned False; a number was wanted"),
        ("mended_number", lambda text: 7 if "7" in text else None, "is 2.5, and yours is None"),
        ("mended_number", lambda text: float(text), "raised ValueError"),
        ("mended_number", lambda text: Decimal(7), "the last number is 2.5, and yours is 7"),
        ("wilson", lambda r, n, c: 0.8, "returned 0.8; the two ends of an interval were wanted"),
        ("wilson", lambda r, n, c: (0.1, 0.5, 0.9), "the two ends of an interval"),
        ("wilson", lambda r, n, c: ("a", "b"), "an end of wilson returned 'a'; a number was"),
        (
            "wilson",
            lambda r, n, c: (0.0, 1.0),
            "8 right of 10, at 95%: from 0.4902 to 0.9433; yours is from 0.0000 to 1.0000",
        ),
        ("wilson", lambda r, n, c: wilson_by_solving(r, n, c)[::-1], "yours is from 0.9433 to"),
        (
            "wilson",
            lambda r, n, c=0: (0.0, 1.0) if not n else wilson_by_solving(r, n, c),
            "For no question it returned (0.0, 1.0), and should raise a ValueError",
        ),
        ("wilson", lambda r, n, c: sure._interval(r, n, sure._z(c)), "raised ZeroDivisionError"),
        ("paired", lambda a, b: 0.2, "returned 0.2; a Paired was wanted"),
        (
            "paired",
            lambda a, b: Paired(1, 5, 0.5),
            "Of 11 questions only the first model got 1 right, only the second 5: 1 : 5, p = 0.2188 "
            "was wanted, and yours is 1 : 5, p = 0.5",
        ),
        ("paired", lambda a, b: Paired(1, 5, None), "was wanted, and yours is Paired"),
        ("paired", lambda a, b: paired_by_numpy(a[:], b) if a.pop() else 3, "changed a list"),
        ("clean_score", lambda r, c: 0.4, "returned 0.4; a CleanScore was wanted"),
        (
            "clean_score",
            lambda r, c: CleanScore(0.625, 0.375, 0.5),
            "seen were [0, 1, 3]: clean is 0.4, and yours is 0.5",
        ),
        (
            "clean_score",
            lambda r, c: CleanScore(0.5, 0.375, 0.4),
            "score is 0.625, and yours is 0.5",
        ),
        (
            "clean_score",
            lambda r, c: CleanScore(0.625, 0.375, None),
            "is 0.4, and yours is NoneType",
        ),
        ("clean_score", lambda r, c: clean_by_sets(r, c) if c.pop() else c, "changed what it was"),
        (
            "clean_score",
            lambda r, c: contamination.clean_score(r, c) if r else CleanScore(0.0, 0.0, None),
            "For no answer it returned CleanScore, and should raise a ValueError",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def logp_of_a_harness(logits_TV, prompt, option):
    """Shifts the whole text as in training and takes as many from the end as the option has."""
    whole = torch.tensor([*prompt, *option, *[0] * (len(logits_TV) - len(prompt) - len(option))])
    logp_T = -F.cross_entropy(logits_TV[:-1].float(), whole[1:], reduction="none")
    return logp_T[-len(option) :].sum()


def logp_in_halves(logits_TV, prompt, option):
    """Adds up in bfloat16, too."""
    rows = torch.arange(len(option)) + len(prompt) - 1
    return logits_TV.log_softmax(-1)[rows, list(option)].sum()


def by_letters_only(by, choices, tokens, logps, alone):
    lengths = [len(choice) for choice in choices]
    return evaluation_tasks._by_lengths(by, choices, lengths, tokens, logps, alone)


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        ("option_logp", logp_of_a_harness, "rows are counted from the end"),
        ("option_logp", logp_in_halves, "taken in bfloat16"),
        (
            "option_logp",
            lambda x, p, o: logp_by_rows(x, p + o[:1], o[1:]),
            "first token is left out",
        ),
        (
            "option_logp",
            lambda x, p, o: logp_by_rows(x, p[:1], p[1:] + o),
            "ln p of the whole text",
        ),
        ("option_logp", lambda x, p, o: logp_by_rows(x[1:], p, o), "at which the model has read"),
        ("option_logp", lambda x, p, o: logp_by_rows(x, p, o) / len(o), "mean over the option's"),
        (
            "picked_option",
            lambda by, c, t, x, a: max(reversed(range(len(x))), key=x.__getitem__),
            "Of equal options the last",
        ),
        ("picked_option", lambda by, c, t, x, a: x.index(max(x)), "whatever is asked for"),
        (
            "picked_option",
            lambda by, c, t, x, a: picked_by_loop(by.replace("un", ""), c, t, x, a),
            "isn't taken off",
        ),
        (
            "few_shots",
            lambda q, e, n: [x for x in e if x.subject == q.subject][:n],
            "itself is among its examples",
        ),
        (
            "choice_prompt",
            lambda q, s: re.sub(r": ([A-D]\n)", r":\1", prompt_by_adding(q, s)),
            "right behind the colon",
        ),
        ("choice_prompt", lambda q, s: prompt_by_adding(q, s) + " ", "ends with a space"),
        ("choice_prompt", lambda q, s: prompt_by_adding(q), ""),
        (
            "mended_number",
            lambda text: (
                float(found[-1].replace(",", ""))
                if (found := re.findall(r"-?\d[\d,]*\.?\d*", text))
                else None
            ),
            "Every comma is taken for",
        ),
        (
            "mended_number",
            lambda text: evaluation_numbers.thousands_cut(text.replace(",", "")),
            "Every comma is taken for",
        ),
        (
            "wilson",
            lambda r, n, c: (r / n - 1.96 * math.sqrt(r / n * (1 - r / n) / n), 1.0),
            "familiar .*, cut off at 0 and 1",
        ),
        (
            "wilson",
            lambda r, n, c: wilson_by_solving(r, n, 0.95),
            "whatever confidence is asked for",
        ),
        (
            "paired",
            lambda a, b: Paired(1, 5, paired_by_numpy(a, b).p / 2),
            "one-sided",
        ),
        (
            "clean_score",
            lambda r, c: clean_by_sets(r, {n - 1 for n in c if n}),
            "",
        ),
    ],
)
def test_a_mistake_is_known_in_another_hand(name, part, why):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert re.search(why, result.reason) if why else not result.reason, result


def test_letters_without_a_space_are_no_other_mistake():
    """Two lengths that are wrong at once: what fits neither gets no reason."""
    result = verdict("picked_option", by_letters_only)
    assert (result.state, result.reason) == ("wrong", "")


def test_what_was_right_before_the_mistake_is_said():
    result = verdict("mended_number", evaluation_numbers.minus_always)
    assert len(result.held) == 8
    assert "10-12" in result.wrong


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("option_logp", lambda *x: 7.0),
        ("picked_option", lambda *x: 7),
        ("few_shots", lambda q, e, n: list(e)[2:3]),
        ("choice_prompt", lambda q, s: "7"),
        ("mended_number", lambda text: 7.7),
        ("wilson", lambda *x: (0.7, 0.77)),
        ("paired", lambda a, b: Paired(7, 7, 0.7)),
        ("clean_score", lambda r, c: CleanScore(0.7, 0.7, 0.7)),
    ],
)
def test_a_mistake_that_nobody_foresaw_gets_no_reason(name, odd):
    """Better none than another one's."""
    assert name in ALL
    result = verdict(name, odd)
    assert (result.state, result.reason) == ("wrong", "")
