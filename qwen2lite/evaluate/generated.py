"""Word problems, as GSM8K asks: a model writes its way to a number, and the last number counts.

Nothing else of what it writes does: neither the way, if the number is right, nor the number, if a
different one comes after it.

Source: GSM8K, arXiv 2110.14168 (the data set's form).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from qwen2lite.evaluate.json_lines import read_json_lines
from qwen2lite.infer.batch import generate_each
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer

ASK = "Question:"
MARK = "####"
"""Stands before the number at the end of a published solution."""

_NUMBER = re.compile(
    r"""
    (?: (?<![\w.,)]) [-−] )?      # a minus; after a number or a bracket it would be a subtraction
    [$£€]?
    ( [0-9]{1,3} (?: ,[0-9]{3} )+ (?![0-9]) | [0-9]+ )
    ( \.[0-9]+ )?                 # a full stop without digits after it ends a sentence
    """,
    re.VERBOSE,
)
_NOTES = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator."""


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Args:
        question: as it is asked.
        solution: a worked one, for who learns from the example.
        answer: the number.
    """

    question: str
    solution: str
    answer: Decimal


@dataclass(frozen=True)
class Written:
    """What a model wrote to a problem."""

    problem: Problem
    text: str

    @property
    def number(self) -> Decimal | None:
        """The last number in it, or None."""
        return last_number(self.text)

    @property
    def is_right(self) -> bool:
        """Whether that is the answer; 12.0 is 12."""
        return self.number == self.problem.answer


def last_number(text: str) -> Decimal | None:
    """The last number of a text, as people write it: "-$1,234.50." is -1234.5, "3, 4" is 4.

    A sign belongs to the number only where nothing is there to subtract from. Units and exponents
    aren't read.
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    size = Decimal(found[1].replace(",", "") + (found[2] or ""))
    return -size if found[0][0] in "-−" else size


def problem_prompt(problem: Problem, shots: Sequence[Problem] = ()) -> str:
    """The problem after worked examples, each of which ends with its number.

    Args:
        problem: to be solved.
        shots: examples, perhaps none.
    """
    solved = [f"{_asked(shot)} {shot.solution} The answer is {shot.answer}.\n\n" for shot in shots]
    return "".join((*solved, _asked(problem)))


def solve(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    problems: Sequence[Problem],
    shots: int = 0,
    max_new_tokens: int = 256,
    rows: int = 8,
    examples: Sequence[Problem] = (),
) -> Iterator[tuple[int, Written]]:
    """Lets a model write, several problems at once; yields each one's number as soon as it is done.

    It takes the likeliest token each time, and stops where it would ask a question of its own, as a
    base model does after its answer.

    Args:
        model: in evaluation mode, with full attention.
        tokenizer: of that model.
        problems: those asked.
        shots: examples before each, the first that aren't the problem itself.
        max_new_tokens: of an answer.
        rows: answers that are written at once.
        examples: where shots are taken from; the problems if none.

    Raises:
        ValueError: fewer examples than shots, or see `generate_batch`.
    """
    prompts = []
    for problem in problems:
        others = (other for other in examples or problems if other != problem)
        before = list(islice(others, max(shots, 0)))
        if len(before) != shots:
            raise ValueError(f"{len(before)} other problems leave no {shots} shots; ask for fewer")
        text = problem_prompt(problem, before)
        prompts.append(tokenizer.encode(text, allowed_special="none"))
    stops = {*tokenizer.eos_ids, *question_ids(tokenizer)}
    written = generate_each(model, prompts, max_new_tokens, eos_ids=stops, rows=rows)
    for number, ids in written:
        text = tokenizer.decode(ids).split(ASK)[0]
        yield number, Written(problems[number], text.strip())


def question_ids(tokenizer: Qwen2Tokenizer) -> list[int]:
    """The token that begins "Question:", if it is one of its own, and a line at that: no space."""
    first = tokenizer.encode(ASK)[:1]
    return first if tokenizer.decode(first) == ASK[:-1] else []


def read_problems(path: str | Path) -> list[Problem]:
    """Reads JSON lines with the fields of GSM8K: question, and answer as "solution #### number".

    Raises:
        ValueError: a line that holds something else; it says which. Or no line.
    """
    return read_json_lines(path, problem_of)


def problem_of(fields: dict[str, Any]) -> Problem:
    """A problem from the fields of its line. Raises ValueError or KeyError for wrong ones."""
    question, answer = str(fields["question"]), str(fields["answer"])
    solution, mark, end = _NOTES.sub("", answer).rpartition(MARK)
    number = last_number(end)
    if not question.strip() or not mark or number is None:
        raise ValueError(
            f'a problem needs a question, and an answer that ends in "{MARK} 12" or another number; '
            f"got {question!r} and {answer!r}"
        )
    return Problem(question, " ".join(solution.split()), number)


def _asked(problem: Problem) -> str:
    return f"{ASK} {problem.question}\nAnswer:"
