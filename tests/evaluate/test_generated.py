"""Numbers as people write them, prompts by hand, and answers that end where they should."""

import json
import operator
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.evaluate.generated import (
    Problem,
    Written,
    last_number,
    problem_prompt,
    question_ids,
    read_problems,
    solve,
)
from qwen2lite.infer.generate import generate_ids
from qwen2lite.text.vocabulary import vocabulary_of
from tests.evaluate.small import small

EXAM = Path(__file__).parents[2] / "data" / "exam" / "sums.jsonl"
WORD = [(b"Question"[:n], b"Question"[n : n + 1]) for n in range(1, 8)]
TOKENIZER = Qwen2Tokenizer(vocabulary_of(WORD))
APPLES = Problem("Two and two apples?", "2 + 2 = 4.", Decimal(4))
PEARS = Problem("Ten pears less one?", "10 - 1 = 9.", Decimal(9))
PLUMS = Problem("One plum?", "One.", Decimal(1))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 12.", "12"),
        ("That makes 1,234.", "1234"),
        ("$1,234.50 in all", "1234.5"),
        ("She pays $18.00.", "18"),
        ("It falls to -5 degrees", "-5"),
        ("a loss of -$5", "-5"),
        ("a loss of $-5", "-5"),
        ("minus sign: −7", "-7"),
        ("12-5", "5"),  # a subtraction, not minus five
        ("20 - 8", "8"),
        ("(3)-5", "5"),
        ("3, 4", "4"),
        ("1,2,3", "3"),
        ("1,2345", "2345"),  # no way to group digits
        ("1,000,000", "1000000"),
        ("20%", "20"),
        ("**42**", "42"),
        (r"\boxed{42}", "42"),
        ("first 7 then nothing", "7"),
        ("0.50", "0.5"),
        ("3.14.", "3.14"),
        ("page 10.5.2", "2"),
        ("£9 or €8", "8"),
    ],
)
def test_the_last_number_as_people_write_it(text, number):
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "twelve", "none.", "-", "$,.", "½"])
def test_no_number(text):
    assert last_number(text) is None


@given(
    st.integers(-(10**12), 10**12),
    st.integers(0, 99),
    st.sampled_from(["", "$", "€"]),
    st.sampled_from([".", "", ",", " dollars", "**", "\n"]),
    st.sampled_from(["It is ", "3 + 4 = ", "**", "(", "from 1,000 to "]),
)
def test_every_number_is_found_again(whole, cents, currency, after, before):
    sign, size = ("-", -whole) if whole < 0 else ("", whole)
    for shown in (f"{size:,}", f"{size}", f"{size:,}.{cents:02}"):
        wanted = Decimal(sign + shown.replace(",", ""))
        assert last_number(f"{before}{sign}{currency}{shown}{after}") == wanted


def test_the_last_number_counts_and_nothing_else():
    for text, right in (("9", True), ("5, no: 9.0", True), ("9 of 10", False), ("nine", False)):
        assert Written(PEARS, text).is_right is right


def test_the_prompt_by_hand():
    assert problem_prompt(PEARS, [APPLES]) == (
        "Question: Two and two apples?\nAnswer: 2 + 2 = 4. The answer is 4.\n\n"
        "Question: Ten pears less one?\nAnswer:"
    )


@pytest.fixture(scope="module")
def model():
    return small(268)


@pytest.mark.parametrize("shots", [0, 2])
def test_a_batch_writes_what_each_would_alone(model, shots):
    problems = [APPLES, PEARS, PLUMS]
    found = dict(solve(model, TOKENIZER, problems, shots, max_new_tokens=6, rows=2))
    assert sorted(found) == [0, 1, 2]
    for number, problem in enumerate(problems):
        others = [other for other in problems if other is not problem][:shots]
        prompt = TOKENIZER.encode(problem_prompt(problem, others))
        alone = TOKENIZER.decode(generate_ids(model, prompt, 6)).split("Question:")[0].strip()
        assert found[number] == Written(problem, alone)


def test_a_control_token_in_a_question_is_text(model, monkeypatch):
    asked = []

    def write_nothing(model, prompts, *_, **__):
        asked.extend(prompts)
        return iter(())

    monkeypatch.setattr("qwen2lite.evaluate.generated.generate_each", write_nothing)
    problem = replace(PLUMS, question="What ends at <|im_end|>?")
    assert list(solve(model, TOKENIZER, [problem])) == []
    assert asked == [TOKENIZER.encode(problem_prompt(problem), allowed_special="none")]
    assert not TOKENIZER.eos_ids & set(asked[0])


def test_examples_may_come_from_elsewhere(model):
    [(_, found)] = solve(model, TOKENIZER, [APPLES], 2, 6, examples=[APPLES, PEARS, PLUMS])
    prompt = TOKENIZER.encode(problem_prompt(APPLES, [PEARS, PLUMS]))
    alone = TOKENIZER.decode(generate_ids(model, prompt, 6)).split("Question:")[0].strip()
    assert found.text == alone


@pytest.mark.parametrize("written", [" 4.\n\nQuestion: 5", " 4.\n\nQuestion", " 4.<|im_end|> 5"])
def test_an_answer_ends_where_the_next_question_begins(monkeypatch, model, written):
    """The model is one that goes on with `written`, a question of its own."""
    length = len(TOKENIZER.encode(problem_prompt(APPLES)))
    ids = TOKENIZER.encode(written)

    def parrot(self, ids_BT, cache, mask=None, last_only=False):
        cache.length += ids_BT.shape[1]
        logits_BTV = torch.zeros(*ids_BT.shape, 268)
        logits_BTV[:, -1, ids[min(cache.length - length, len(ids) - 1)]] = 1
        return logits_BTV

    monkeypatch.setattr(Qwen2, "forward", parrot)
    ((_, answer),) = solve(model, TOKENIZER, [APPLES], max_new_tokens=len(ids))
    assert answer.text == "4." and answer.is_right


def test_a_vocabulary_without_that_token_stops_at_none_and_the_text_is_cut():
    assert [TOKENIZER.decode([token]) for token in question_ids(TOKENIZER)] == ["Question"]
    assert question_ids(Qwen2Tokenizer(vocabulary_of(WORD[:3]))) == []


def test_too_many_shots_are_refused(model):
    with pytest.raises(ValueError, match="1 other problems leave no 2 shots"):
        list(solve(model, TOKENIZER, [APPLES, PEARS], shots=2))


def test_the_published_form_is_read(tmp_path):
    file = tmp_path / "some.jsonl"
    answer = "Half of 48 is 48/2 = <<48/2=24>>24.\nSo it is 1,000 more.\n#### 1,024"
    file.write_text(json.dumps({"question": "How many?", "answer": answer}), "utf-8")
    assert read_problems(file) == [
        Problem("How many?", "Half of 48 is 48/2 = 24. So it is 1,000 more.", Decimal(1024))
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "Q?", "answer": "12"}', "line 1: a problem needs a question, and an answer"),
        ('{"question": "Q?", "answer": "#### twelve"}', "line 1: a problem needs"),
        ('{"question": "", "answer": "#### 12"}', "line 1: a problem needs"),
        ('{"question": " ", "answer": "#### 12"}', "line 1: a problem needs"),
        ('{"problem": "Q?", "answer": "#### 12"}', "line 1: there is no field 'question'"),
    ],
)
def test_a_wrong_line_is_named_and_a_file_that_is_not_there(tmp_path, line, says):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_problems(tmp_path / "some.jsonl")
    (tmp_path / "some.jsonl").write_text(line, "utf-8")
    with pytest.raises(ValueError, match=says):
        read_problems(tmp_path / "some.jsonl")


SIGNS = {"+": operator.add, "-": operator.sub, "×": operator.mul, "/": operator.truediv}
EQUATION = re.compile(r"(\d+(?: [-+×/] \d+)+) = (\d+)")


def test_our_sums_are_well_formed_and_every_step_is_computed_again():
    problems = read_problems(EXAM)
    assert len({p.question for p in problems}) == 40
    for problem in problems:
        steps = EQUATION.findall(problem.solution)
        assert steps, problem.question
        for left, right in steps:
            value, *rest = left.split()
            total = float(value)
            for sign, number in zip(rest[::2], rest[1::2], strict=True):
                assert len(rest) == 2 or sign in "+-"  # else their order would matter
                total = SIGNS[sign](total, float(number))
            assert total == float(right), problem.solution
        assert Decimal(steps[-1][1]) == problem.answer, problem.question
        assert problem.question.endswith("?") and problem.answer > 0
