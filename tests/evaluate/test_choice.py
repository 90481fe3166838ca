"""One reading with a cache gives what reading every text anew gives; the ways differ as they should."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.evaluate.choice import (
    LETTERS,
    WAYS,
    Question,
    Scored,
    choice_prompt,
    choose,
    few_shots,
    is_right,
    open_prompt,
    read_questions,
    score_questions,
)  # fmt: skip
from qwen2lite.evaluate.reader import Reader
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.load import load
from qwen2lite.text.vocabulary import vocabulary_of
from tests.evaluate.small import small

EXAM = Path(__file__).parents[2] / "data" / "exam" / "choices.jsonl"
TINY = EXAM.parents[1] / "qwen2-tiny"
TOKENIZER = Qwen2Tokenizer(vocabulary_of([(b" ", b"t"), (b"1", b"2"), (b" ", b"B")]))
SKY = Question("What is blue?", ("sky", "a red tt", "12", "mud"), 0, "colours")
SUN = Question("What is hot?", ("the sun", "ice", "t", "a 12 t"), 3, "colours")
SNOW = Question("What is white?", ("ink", "snow"), 1, "colours")


@pytest.fixture(scope="module")
def model():
    return small(262)


@torch.no_grad()
def anew(model, tokenizer, text, continuation):
    before, after = tokenizer.encode(text), tokenizer.encode(continuation)
    logits_BTV = model(torch.tensor([before + after]))
    logps = logits_BTV[0].double().log_softmax(-1)
    return sum(float(logps[len(before) + i - 1, token]) for i, token in enumerate(after))


@pytest.mark.parametrize("shots", [0, 1, 2])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: CompiledQwen2(m, with_compiler=False)])
def test_all_numbers_are_those_of_each_text_read_anew(model, shots, wrap):
    questions = [SKY, SUN, SNOW]
    for question, scored in zip(
        questions, score_questions(wrap(model), TOKENIZER, questions, shots), strict=True
    ):
        examples = [other for other in questions if other is not question][:shots]
        options = [f" {choice}" for choice in question.choices]
        letters = [f" {letter}" for letter in "ABCD"[: len(options)]]
        for found, text, pieces in (
            (scored.letter_logps, choice_prompt(question, examples), letters),
            (scored.option_logps, open_prompt(question, examples), options),
            (scored.alone_logps, "Answer:", options),
        ):
            wanted = [anew(model, TOKENIZER, text, piece) for piece in pieces]
            assert found == pytest.approx(wanted, abs=1e-4)
            assert max(wanted) - min(wanted) > 0.1  # else any order would do
        assert scored.tokens == tuple(len(TOKENIZER.encode(option)) for option in options)


def test_a_packed_model_in_bfloat16_gives_the_same_to_its_three_digits():
    tokenizer, packed = Qwen2Tokenizer.from_pretrained(TINY), load(TINY, "bfloat16", "cpu")
    whole = Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")
    for scored in score_questions(packed, tokenizer, [SKY, SUN], shots=1):
        other = SUN if scored.question is SKY else SKY
        text = open_prompt(scored.question, [other])
        wanted = [anew(whole, tokenizer, text, f" {c}") for c in scored.question.choices]
        # Logits of about 10 are known to 2^-8 of that, 0.04, and so is each token's ln p.
        assert scored.option_logps == pytest.approx(wanted, abs=0.04 * max(scored.tokens))


def test_a_cache_that_is_not_set_back_would_be_seen(model):
    text = open_prompt(SKY)
    first, second = " the sun", " 12 t"
    found = Reader(model, TOKENIZER).logps(text, [first, second])[1]
    wrong = anew(model, TOKENIZER, text + first, second)
    assert found == pytest.approx(anew(model, TOKENIZER, text, second), abs=1e-4)
    assert abs(found - wrong) > 0.1


def test_what_texts_share_is_read_once(model):
    reader = Reader(model, TOKENIZER)
    reader.logps("abcdefgh", ["x"])
    assert reader.tokens_read == 8
    reader.logps("abcdefXY", ["x", "xy"])
    assert reader.tokens_read == 8 + 2 + 1  # of "xy" its first
    reader.logps("abcdefXY", ["x"])
    assert reader.tokens_read == 8 + 2 + 1 + 1  # the last is always read
    longer = "abcdefXY" + 200 * "z"  # a larger cache begins empty
    assert reader.logps(longer, [" t"]) == pytest.approx(
        [anew(model, TOKENIZER, longer, " t")], abs=1e-4
    )


def test_in_bfloat16_the_scores_are_rounded_and_nothing_after_them():
    narrow, ids = small(262).to(torch.bfloat16), TOKENIZER.encode("What is blue?")
    with torch.inference_mode():
        logits_BTV = narrow(torch.tensor([ids]), narrow.new_cache(50), last_only=True)
    wanted = logits_BTV[0, -1].double().log_softmax(-1)[TOKENIZER.encode("x")]
    found = Reader(narrow, TOKENIZER).logps("What is blue?", ["x"])
    assert found == pytest.approx(wanted.tolist(), abs=1e-5)


def test_the_context_has_room_for_all_but_the_last_token_of_the_longest(model):
    assert len(Reader(model, TOKENIZER).logps("a" * 510, ["x", "xyz"])) == 2
    with pytest.raises(ValueError, match="513 tokens, .* doesn't fit this model's context"):
        Reader(model, TOKENIZER).logps("a" * 510, ["x", "wxyz"])


def test_the_prompts_by_hand():
    assert choice_prompt(SNOW, [SKY]) == (
        "Multiple choice questions about colours, with answers.\n\n"
        "What is blue?\nA. sky\nB. a red tt\nC. 12\nD. mud\nAnswer: A\n\n"
        "What is white?\nA. ink\nB. snow\nAnswer:"
    )
    assert open_prompt(SNOW, [SUN]) == (
        "Question: What is hot?\nAnswer: a 12 t\n\nQuestion: What is white?\nAnswer:"
    )
    assert choice_prompt(replace(SNOW, subject="")).startswith("Multiple choice questions, with")


def test_each_way_takes_another_option():
    question = Question("Which?", ("aaa", "b" * 9, "c" * 39, "d" * 19, "e"), 2)
    scored = Scored(
        question,
        tokens=(1, 4, 4, 2, 1),
        letter_logps=(-5, -4, -3, -2, -1),
        option_logps=(-2.0, -4.0, -8.0, -2.5, -3.0),
        alone_logps=(-2.5, -9.0, -8.0, -3.0, -3.0),
    )
    # Sums: -2 is the most. A token: -2, -1, -2, -1.25, -3. A byte, the space among them: -0.5, -0.4,
    # -0.2, -0.125, -1.5. Over the unconditional: 0.5, 5, 0, 0.5, 0.
    chosen = {way: choose(scored, way) for way in WAYS}
    assert chosen == {"letter": 4, "sum": 0, "token": 1, "byte": 3, "unconditional": 1}
    assert is_right(replace(scored, question=replace(question, answer=3)), "byte")
    assert not is_right(scored, "byte")
    tie = replace(scored, letter_logps=(-1.0,) * 5)
    assert choose(tie, "letter") == 0


def test_what_no_way_needs_is_not_read(model):
    (scored,) = score_questions(model, TOKENIZER, [SKY], by=("letter",))
    assert scored.letter_logps and not scored.option_logps
    for way in ("sum", "unconditional"):
        with pytest.raises(ValueError, match="wasn't read"):
            choose(scored, way)
    (scored,) = score_questions(model, TOKENIZER, [SKY], by=("sum",))
    assert not scored.letter_logps and not scored.alone_logps
    assert choose(scored, "byte") in range(4)
    with pytest.raises(ValueError, match="must be one of letter, sum"):
        choose(scored, "tokens")


def test_a_control_token_in_a_question_is_text(model):
    assert max(TOKENIZER.encode("<|im_end|>")) > 256
    reader = Reader(model, TOKENIZER)
    assert len(reader.ids("<|im_end|>")) == 10


def test_shots_are_the_first_others_of_the_subject():
    other = replace(SUN, subject="weather")
    assert few_shots(SUN, [SKY, SUN, other, SNOW], 2) == [SKY, SNOW]
    assert few_shots(SUN, [SKY], 0) == []
    with pytest.raises(ValueError, match="3 shots were asked for, and beside 'What is hot"):
        few_shots(SUN, [SKY, SUN, other, SNOW], 3)


def test_examples_may_come_from_elsewhere(model):
    [found] = score_questions(model, TOKENIZER, [SUN], 2, ("letter",), examples=[SKY, SUN, SNOW])
    letters = [f" {letter}" for letter in LETTERS[: len(SUN.choices)]]
    text = choice_prompt(SUN, [SKY, SNOW])
    assert list(found.letter_logps) == Reader(model, TOKENIZER).logps(text, letters)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"question": " "}, "need words"),
        ({"choices": ("a", "")}, "need words"),
        ({"choices": ("a", " ")}, "need words"),
        ({"choices": ("a", "a")}, "different options"),
        ({"choices": ("a",)}, "2 to 10"),
        ({"choices": tuple("abcdefghijk")}, "2 to 10"),
        ({"answer": 4}, "from 0 to 3, got 4"),
        ({"answer": -1}, "from 0 to 3, got -1"),
    ],
)
def test_what_is_no_question_is_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        replace(SKY, **changed)
    assert replace(SKY, choices=tuple("abcdefghij")).answer == 0


def test_a_text_or_an_option_without_a_token_is_refused(model):
    for text, options in (("", ["x"]), ("x", [""]), ("x", ["y", ""]), ("x", [])):
        with pytest.raises(ValueError, match="need a token each"):
            Reader(model, TOKENIZER).logps(text, options)
    with pytest.raises(ValueError, match="context of 512; give fewer examples"):
        Reader(model, TOKENIZER).logps("x" * 513, ["y"])


def test_letters_and_numbers_are_read_alike(tmp_path):
    fields = {"question": "Q?", "choices": ["x", "y", "z"], "subject": "s"}
    file = tmp_path / "some.jsonl"
    lines = [json.dumps({**fields, "answer": answer}) for answer in (2, "C")]
    file.write_text("\n\n".join(lines) + "\n", "utf-8")
    assert read_questions(file) == [Question("Q?", ("x", "y", "z"), 2, "s")] * 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "Q?", "choices": ["x", "y"]}', "line 2: there is no field 'answer'"),
        ('{"question": "Q?", "choices": ["x", "y"], "answer": "AB"}', "line 2: answer must be"),
        ('{"question": "Q?", "choices": ["x", "y"], "answer": 0.5}', "line 2: answer must be"),
        ('{"question": "Q?", "choices": ["x", "y"], "answer": "C"}', "line 2: answer must be from"),
        ('{"question": "Q?", "choices": "xy", "answer": 0}', "line 2: choices must be a list"),
        ('["Q?"]', "line 2: a line must be an object"),
        ("{", "line 2 is no JSON: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, says):
    file = tmp_path / "some.jsonl"
    file.write_text('{"question": "Q?", "choices": ["x", "y"], "answer": 0}\n' + line, "utf-8")
    with pytest.raises(ValueError, match=says):
        read_questions(file)


def test_a_line_ends_where_json_says_whatever_program_wrote_it(tmp_path):
    """Python counts U+2028 and U+0085 as line breaks too; Notepad may begin with a mark of its own."""
    line = json.dumps(
        {"question": "A\u2028B\x85C?", "choices": ["x", "y"], "answer": 0}, ensure_ascii=False
    )
    file = tmp_path / "some.jsonl"
    file.write_bytes(f"\ufeff{line}\r\n \r\n{line}\r\n".encode())
    assert [asked.question for asked in read_questions(file)] == ["A\u2028B\x85C?"] * 2


def test_a_file_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "latin.jsonl"
    file.write_bytes('{"question": "Für wen?"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.jsonl is not UTF-8"):
        read_questions(file)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    with pytest.raises(ValueError, match="holds no question"):
        read_questions(tmp_path / "empty.jsonl")


def test_our_questions_are_well_formed():
    questions = read_questions(EXAM)
    assert len(questions) == len({q.question for q in questions}) == 100
    assert all(len(q.choices) == 4 for q in questions)
    per_subject = Counter((q.subject, LETTERS[q.answer]) for q in questions)
    assert len({subject for subject, _ in per_subject}) == 5
    assert set(per_subject.values()) == {5}  # five of each letter in each subject
    # The first four are shots: all letters occur, so none is favoured by the examples.
    for subject in {q.subject for q in questions}:
        first = [q for q in questions if q.subject == subject][:4]
        assert {q.answer for q in first} == {0, 1, 2, 3}
    uneven = [
        q for q in questions if len(max(q.choices, key=len)) > 2 * len(min(q.choices, key=len))
    ]
    assert len(uneven) > 10
    longest = sum(len(q.choices[q.answer]) == max(map(len, q.choices)) for q in questions)
    assert 25 <= longest <= 60, "the right option is neither always the longest nor never"


def test_answers_of_sums_are_computed_again():
    known = {
        "What is 7 × 8?": 7 * 8,
        "What is 100 - 37?": 100 - 37,
        "What is 9 × 12?": 9 * 12,
        "What is -3 + 8?": -3 + 8,
        "What is 15 percent of 200?": 200 * 15 // 100,
        "What is the square root of 144?": math.isqrt(144),
        "What is three quarters as a decimal?": 3 / 4,
        "Which number comes next: 2, 4, 8, 16?": 2 * 16,
        "For which x is x + 9 = 15?": 15 - 9,
        "What is 2 to the power of 5?": 2**5,
        "What is half of 86?": 86 // 2,
        "What is the average of 4, 8 and 12?": (4 + 8 + 12) // 3,
        "How many minutes are there in 3 hours?": 3 * 60,
        "To how many degrees do the angles of a triangle add up?": 180,
        "What is the area of a rectangle of 6 m by 4 m?": f"{6 * 4} square metres",
        "What is the perimeter of a square with sides of 5 cm?": f"{4 * 5} cm",
        "Which of these numbers is prime?": next(
            n for n in (15, 21, 27, 17) if all(n % d for d in range(2, n))
        ),
        "Which of these fractions is the largest?": "{}/{}".format(
            *max([(1, 2), (3, 5), (2, 3), (1, 4)], key=lambda pair: pair[0] / pair[1])
        ),
    }
    questions = {q.question: q for q in read_questions(EXAM)}
    for question, answer in known.items():
        assert questions[question].choices[questions[question].answer] == str(answer)
    assert {q.subject for name, q in questions.items() if name in known} == {"mathematics"}
    assert len(known) == 18  # the others are words: a hexagon, an even number


@pytest.mark.real
def test_a_letter_is_one_token_and_options_are_cut_where_the_whole_text_is(real_tokenizer):
    encode = real_tokenizer.encode
    assert all(len(encode(f" {letter}")) == 1 for letter in LETTERS)
    for question in read_questions(EXAM):
        for choice in question.choices:
            text = open_prompt(question)
            assert encode(text) + encode(f" {choice}") == encode(f"{text} {choice}")
        listed = choice_prompt(question)
        assert encode(listed) + encode(" A") == encode(f"{listed} A")
