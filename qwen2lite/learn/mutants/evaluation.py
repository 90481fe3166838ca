"""Wrong answers to the exercise 75_evaluation: examples, how one asks, what was seen.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qwen2lite.evaluate.choice import LETTERS, Question
from qwen2lite.evaluate.choice import choice_prompt as right_prompt
from qwen2lite.evaluate.contamination import CleanScore


def itself_among(question: Question, examination: Iterable[Question], count: int) -> list[Question]:
    """The question itself is among its examples, with its answer: the model only has to copy it.
    Leave out what is equal to the question."""
    return _first(count, [q for q in examination if q.subject == question.subject])


def same_object(question: Question, examination: Iterable[Question], count: int) -> list[Question]:
    """A copy of the question is among its examples. `is` asks whether two names mean the same object;
    read from a file twice, equal questions are two. Compare with `!=`."""
    alike = (q for q in examination if q.subject == question.subject)
    return _first(count, [q for q in alike if q is not question])


def any_subject(question: Question, examination: Iterable[Question], count: int) -> list[Question]:
    """The examples are of any subject. Those of the same subject are wanted."""
    return _first(count, [q for q in examination if q != question])


def dropped_afterwards(
    question: Question, examination: Iterable[Question], count: int
) -> list[Question]:
    """The question is dropped after the first ones were taken, so that one example is missing. Leave
    it out before you count."""
    first = _first(count, [q for q in examination if q.subject == question.subject])
    return [q for q in first if q != question]


def the_last(question: Question, examination: Iterable[Question], count: int) -> list[Question]:
    """These are the last examples, or they come in another order. The first ones are wanted, as they
    stand: who compares two models must show both the same examples."""
    others = _others(question, examination)
    return _first(count, others[::-1])[::-1]


def too_few_accepted(
    question: Question, examination: Iterable[Question], count: int
) -> list[Question]:
    """There are fewer examples than were asked for, and nobody hears of it: the score goes into a
    table as one with so many shots. Raise a ValueError."""
    return _others(question, examination)[:count]


def _others(question: Question, examination: Iterable[Question]) -> list[Question]:
    return [q for q in examination if q.subject == question.subject and q != question]


def _first(count: int, questions: list[Question]) -> list[Question]:
    if len(questions) < count:
        raise ValueError("fewer than were asked for")
    return questions[:count]


def _written(question: Question, shots: Sequence[Question], said: Callable[[Question], str]) -> str:
    """The prompt, with what is said after each example's "Answer:" and before its end."""
    answered = [f"{_listed(shot)}{said(shot)}\n\n" for shot in shots]
    return "".join((_heading(question), *answered, _listed(question)))


def _heading(question: Question) -> str:
    return right_prompt(question).partition("\n\n")[0] + "\n\n"


def _listed(question: Question) -> str:
    return right_prompt(question).partition("\n\n")[2]


def letter_without_space(question: Question, shots: Sequence[Question] = ()) -> str:
    """The letter of an example stands right behind the colon. "B" and " B" are two tokens, and the
    model is asked for the one with the space: show it that one."""
    return _written(question, shots, lambda shot: LETTERS[shot.answer])


def space_at_the_end(question: Question, shots: Sequence[Question] = ()) -> str:
    """The prompt ends with a space. Then the space is a token of its own, as it never is before a
    letter, and the letter that should come begins with another one. It ends with the colon."""
    return right_prompt(question, shots) + " "


def answers_from_1(question: Question, shots: Sequence[Question] = ()) -> str:
    """The letters are one too far. Answers count from 0, so 0 is A."""
    return _written(question, shots, lambda shot: f" {LETTERS[shot.answer + 1]}")


def numbers_for_letters(question: Question, shots: Sequence[Question] = ()) -> str:
    """An example is answered by a number, and a letter is going to be asked for. LETTERS has them."""
    return _written(question, shots, lambda shot: f" {shot.answer}")


def texts_for_letters(question: Question, shots: Sequence[Question] = ()) -> str:
    """An example is answered by the option's text. Here the letters compete: what the model has seen
    as an answer it will give as one."""
    return _written(question, shots, lambda shot: f" {shot.choices[shot.answer]}")


def not_answered(question: Question, shots: Sequence[Question] = ()) -> str:
    """The examples aren't answered. They are there to show how an answer looks."""
    return _written(question, shots, lambda shot: "")


def answer_given_away(question: Question, shots: Sequence[Question] = ()) -> str:
    """The answer stands behind the question that is to be answered. Only examples have theirs."""
    return f"{right_prompt(question, shots)} {LETTERS[question.answer]}"


def not_parted(question: Question, shots: Sequence[Question] = ()) -> str:
    """There is no empty line between an example and what follows. Two line ends come after its
    letter."""
    answered = [f"{_listed(shot)} {LETTERS[shot.answer]}\n" for shot in shots]
    return "".join((_heading(question), *answered, _listed(question)))


def examples_last(question: Question, shots: Sequence[Question] = ()) -> str:
    """The question comes before its examples. A model continues a text: what is to be answered
    stands at the end."""
    answered = [f"\n\n{_listed(shot)} {LETTERS[shot.answer]}" for shot in shots]
    return "".join((_heading(question), _listed(question), *answered))


def subject_lost(question: Question, shots: Sequence[Question] = ()) -> str:
    """The subject isn't named. Where there is one, the heading says so: "Multiple choice questions
    about history, with answers."."""
    prompt = right_prompt(question, shots)
    return prompt.replace(f" about {question.subject}", "", 1) if question.subject else prompt


def about_nothing(question: Question, shots: Sequence[Question] = ()) -> str:
    """A question without a subject is said to be about something nameless. Without one the heading
    is "Multiple choice questions, with answers."."""
    prompt = right_prompt(question, shots)
    return prompt if question.subject else prompt.replace("questions,", "questions about ,", 1)


def _clean(right: Sequence[bool], contaminated: set[int]) -> list[bool]:
    if not right or not contaminated <= set(range(len(right))):
        raise ValueError("numbers of questions that were asked, from 0")
    return [hit for number, hit in enumerate(right) if number not in contaminated]


def _row(right: Sequence[bool], contaminated: set[int], clean: float | None) -> CleanScore:
    return CleanScore(sum(right) / len(right), len(contaminated) / len(right), clean)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def counted_as_wrong(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """Contaminated questions count as wrong: the clean score is divided by all questions. Leave them
    out above and below the line."""
    clean = _clean(right, contaminated)
    return _row(right, contaminated, sum(clean) / len(right) if clean else None)


def seen_for_clean(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """This is the score on the contaminated questions. The clean ones are the others."""
    _clean(right, contaminated)
    return _row(right, contaminated, _share([right[number] for number in contaminated]))


def counted_from_1(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """Other questions are left out than were found: numbers count from 0, and `enumerate` does, too,
    unless it is told otherwise."""
    _clean(right, contaminated)
    clean = [hit for number, hit in enumerate(right, 1) if number not in contaminated]
    return _row(right, contaminated, _share(clean))


def a_count(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """How many are contaminated is a count here. Their share of all questions is wanted."""
    clean = _share(_clean(right, contaminated))
    return CleanScore(sum(right) / len(right), len(contaminated), clean)


def zero_of_none(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """Where no question is clean there is no clean score. 0 would say that all of them were wrong:
    give None."""
    return _row(right, contaminated, _share(_clean(right, contaminated)) or 0.0)


def unknown_numbers(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """A number that no question has is passed over in silence. It comes from a list that doesn't
    belong to these answers, or counts from 1: raise a ValueError."""
    return _row(right, contaminated, _share(_clean(right, contaminated & set(range(len(right))))))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "few_shots": (
        same_object, itself_among, any_subject, dropped_afterwards, the_last, too_few_accepted,
    ),
    "choice_prompt": (
        letter_without_space, space_at_the_end, answers_from_1, numbers_for_letters,
        texts_for_letters, not_answered, answer_given_away, not_parted, examples_last, subject_lost,
        about_nothing,
    ),
    "clean_score": (
        counted_as_wrong, seen_for_clean, counted_from_1, a_count, zero_of_none, unknown_numbers,
    ),
}  # fmt: skip
"""The wrong versions of each task."""
