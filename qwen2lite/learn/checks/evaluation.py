"""What three tasks of the exercise 75_evaluation ask: examples, a prompt, and a clean score."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from qwen2lite.evaluate.choice import Question
from qwen2lite.evaluate.choice import choice_prompt as right_prompt
from qwen2lite.evaluate.contamination import CleanScore
from qwen2lite.learn.checks.sft import outlined
from qwen2lite.learn.contract import Mistake, call, describe, require_refusal, told_by
from qwen2lite.learn.mutants import evaluation as mutants
from qwen2lite.learn.mutants.evaluation import MUTANTS

Part = Callable[..., Any]
_SUN = Question("What is hot?", ("ice", "the sun", "snow", "a cold soup"), 1, "weather")
_SKY = Question("What is blue?", ("the sky", "grass", "coal", "milk"), 0, "weather")
_ROME = Question("Where is Rome?", ("Spain", "France", "Italy", "Greece"), 2, "cities")
_ICE = Question("What is cold?", ("fire", "tea", "ice", "an oven"), 2, "weather")
_FOG = Question("What is grey?", ("fog", "blood"), 0, "weather")
_EXAM = (_SUN, _SKY, _ROME, _ICE, _FOG)


def check_few_shots(few_shots: Part) -> Iterator[str]:
    """From an examination with two subjects: itself never, the first others, so many as asked for."""
    _require_shots(few_shots, _SKY, 2, [_SUN, _ICE])
    yield "the first of the same subject, without the question itself"
    _require_shots(few_shots, _SUN, 1, [_SKY])
    _require_shots(few_shots, _FOG, 3, [_SUN, _SKY, _ICE])
    yield "so many as were asked for"
    _require_shots(few_shots, replace(_SKY), 3, [_SUN, _ICE, _FOG])
    yield "a copy of the question is the question"
    _require_shots(few_shots, _ROME, 0, [])
    yield "none where none are wanted"
    for question, count in ((_SKY, 4), (_ROME, 1)):
        require_refusal(
            few_shots,
            (question, _EXAM, count),
            f"With {count} shots for {question.question!r}, and fewer others of its subject,",
            told_by(mutants.too_few_accepted),
            _asked,
        )
    yield "too few others are refused"


def _require_shots(part: Part, question: Question, count: int, want: list[Question]) -> None:
    got = call(part, question, _EXAM, count, name="few_shots")
    found = list(got) if isinstance(got, list | tuple) else None
    if found is None or not all(isinstance(shot, Question) for shot in found):
        raise Mistake(f"few_shots returned {outlined(got)}; a list of questions was wanted.")
    if found != want:
        raise Mistake(
            f"{count} shots for {question.question!r}: {_asked(want)} was wanted, and you gave "
            f"{_asked(found)}.",
            _known("few_shots", found, question, _EXAM, count),
        )


def _asked(got: Any) -> str:
    """Questions by their first words, anything else as it is described."""
    are_questions = isinstance(got, list | tuple) and all(isinstance(q, Question) for q in got)
    return f"[{', '.join(q.question for q in got)}]" if are_questions else describe(got)


def check_choice_prompt(choice_prompt: Part) -> Iterator[str]:
    """By hand, letter by letter: without examples, with one, with two, without a subject."""
    for question, shots, what in (
        (_SKY, [], "a question by itself"),
        (_SKY, [_SUN], "after an example whose answer is B"),
        (_ROME, [_SKY, _ICE], "after two, A and C"),
        (replace(_FOG, subject=""), [_SUN], "two options, and no subject"),
    ):
        _require_prompt(choice_prompt, question, shots)
        yield what


def _require_prompt(part: Part, question: Question, shots: Sequence[Question]) -> None:
    want, got = right_prompt(question, shots), call(part, question, shots, name="choice_prompt")
    if not isinstance(got, str):
        raise Mistake(f"choice_prompt returned {outlined(got)}; a text was wanted.")
    if got == want:
        return
    reason = _known("choice_prompt", got, question, shots)
    same = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), None)
    at = min(len(got), len(want)) if same is None else same
    raise Mistake(
        f"After {want[max(0, at - 20) : at]!r}, {_next(want, at)} was wanted, and yours has "
        f"{_next(got, at)}.",
        reason,
    )


def _next(text: str, at: int) -> str:
    return repr(text[at : at + 12]) if at < len(text) else "the end"


def check_clean_score(clean_score: Part) -> Iterator[str]:
    """By hand, with nothing found, with everything found, and what is refused."""
    right = [True, True, False, True, False, False, True, True]
    _require_row(clean_score, right, {0, 1, 3})
    yield "5 right of 8, three of them seen: 0.625 in all, 0.4 without"
    _require_row(clean_score, right, {2, 7})
    _require_row(clean_score, right, set())
    yield "nothing was seen: the same score"
    _require_row(clean_score, right, set(range(8)))
    yield "everything was seen: no clean score"
    _require_row(clean_score, [False, False, True], {2})
    yield "all clean ones wrong: 0, which is a score"
    for given, numbers, what in (([], set(), "no answer"), (right, {8}, "8 answers and number 8")):
        reason = told_by(mutants.unknown_numbers) if given else ""
        inputs = given, numbers
        require_refusal(clean_score, inputs, f"For {what}", reason)
    yield "no answer is refused, and a question that wasn't asked"


def _require_row(part: Part, right: list[bool], contaminated: set[int]) -> None:
    given = list(right), set(contaminated)
    got = call(part, *given, name="clean_score")
    if given != (right, contaminated):
        raise Mistake("clean_score changed what it was given; make a new list.")
    if not isinstance(got, CleanScore):
        raise Mistake(f"clean_score returned {describe(got)}; a CleanScore was wanted.")
    clean = [hit for number, hit in enumerate(right) if number not in contaminated]
    wanted = {
        "score": sum(right) / len(right),
        "contaminated": len(contaminated) / len(right),
        "clean": sum(clean) / len(clean) if clean else None,
    }
    for name, want in wanted.items():
        found = getattr(got, name)
        if not _is_near(found, want):
            raise Mistake(
                f"Right are {[n for n, hit in enumerate(right) if hit]} of {len(right)}, seen were "
                f"{sorted(contaminated)}: {name} is {_told(want)}, and yours is {_told(found)}.",
                _known_row(got, right, contaminated),
            )


def _is_near(got: Any, want: float | None) -> bool:
    if got is None or want is None or not isinstance(got, int | float):
        return got is None and want is None
    return abs(got - want) < 1e-9


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else describe(value)


def _known_row(got: CleanScore, *inputs: Any) -> str:
    for mutant in MUTANTS["clean_score"]:
        if all(_is_near(a, b) for a, b in zip(*map(_fields, (got, mutant(*inputs))), strict=True)):
            return told_by(mutant)
    return ""


def _fields(row: CleanScore) -> tuple[Any, ...]:
    return row.score, row.contaminated, row.clean


def _known(name: str, got: Any, *inputs: Any) -> str:
    for mutant in MUTANTS[name]:
        try:
            wrong = mutant(*inputs)
        except (ValueError, IndexError):  # it can't answer this one
            continue
        if wrong == got:
            return told_by(mutant)
    return ""
