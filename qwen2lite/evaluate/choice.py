r"""Multiple choice, as MMLU asks: a model writes nothing, and what it holds likeliest counts.

Likeliest of what? Harnesses differ. Either the options stand in the prompt under letters, and the
letter is the answer. Or they don't, and each is tried as a continuation; then a long option loses for
its length alone, so that some divide by it, and others by how likely the option is without a question.
One reading of the model gives the numbers for all of these ways.

Source: MMLU, arXiv 2009.03300 (letters); arXiv 2005.14165, section 2.4 (whole options, per token, and
over their unconditional probability).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qwen2lite.evaluate.json_lines import read_json_lines
from qwen2lite.evaluate.reader import Reader
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer

LETTERS = tuple("ABCDEFGHIJ")
ANSWER = "Answer:"


@dataclass(frozen=True)
class Question:
    """A question and its options.

    Args:
        question: as it is asked.
        choices: 2 to 10 different options.
        answer: number of the right one, from 0.
        subject: of its examination, such as geography.

    Raises:
        ValueError: an empty question or option, equal ones, too few or many, or no such answer.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip() or not all(choice.strip() for choice in self.choices):
            raise ValueError(f"a question and its options need words; got {self}")
        count = len(set(self.choices))
        if count != len(self.choices) or not 2 <= count <= len(LETTERS):
            raise ValueError(
                f"a question needs 2 to {len(LETTERS)} different options; got {self.choices}"
            )
        if not 0 <= self.answer < count:
            raise ValueError(f"answer must be from 0 to {count - 1}, got {self.answer}")

    @property
    def text(self) -> str:
        """Question and options, as a corpus might hold them."""
        return "\n".join((self.question, *self.choices))


@dataclass(frozen=True)
class Scored:
    r"""A question and what a model thinks of its options; each tuple has a number an option.

    Args:
        question: which.
        tokens: of each option's text.
        letter_logps: $\ln p$ of each letter after the question with its options.
        option_logps: $\ln p$ of each option's text after the question without them.
        alone_logps: $\ln p$ of each option's text after "Answer:" alone.
    """

    question: Question
    tokens: tuple[int, ...]
    letter_logps: tuple[float, ...] = ()
    option_logps: tuple[float, ...] = ()
    alone_logps: tuple[float, ...] = ()

    @property
    def utf8_bytes(self) -> tuple[int, ...]:
        """Of each option's text with its space: a length that depends on no tokenizer."""
        return tuple(len(f" {choice}".encode()) for choice in self.question.choices)


WAYS: dict[str, Callable[[Scored], Iterable[float]]] = {
    "letter": lambda scored: scored.letter_logps,
    "sum": lambda scored: scored.option_logps,
    "token": lambda scored: _ratios(scored.option_logps, scored.tokens),
    "byte": lambda scored: _ratios(scored.option_logps, scored.utf8_bytes),
    "unconditional": lambda scored: (
        given - alone for given, alone in zip(scored.option_logps, scored.alone_logps, strict=True)
    ),
}
"""What each way compares; the option with the most is the answer."""


def choose(scored: Scored, by: str = "letter") -> int:
    """The option that a model takes, one of `WAYS` being asked; of equals the first.

    Equals are common between letters in bfloat16, where scores from 16 to 32 are multiples of 1/8:
    then the order decides, and float32 is worth its time.

    Raises:
        ValueError: no such way, or one whose numbers weren't read.
    """
    if by not in WAYS:
        raise ValueError(f"by must be one of {', '.join(WAYS)}; got {by!r}")
    read = scored.letter_logps if by == "letter" else scored.option_logps
    if not read or (by == "unconditional" and not scored.alone_logps):
        raise ValueError(f"by={by!r} compares what wasn't read; name it in score_questions(by=…)")
    values = list(WAYS[by](scored))
    return values.index(max(values))


def is_right(scored: Scored, by: str = "letter") -> bool:
    """Whether that option is the right one."""
    return choose(scored, by) == scored.question.answer


def listed(question: Question) -> str:
    """A question with its options under letters, down to the "Answer:" that waits for one."""
    options = zip(LETTERS, question.choices, strict=False)
    lines = [question.question, *(f"{letter}. {option}" for letter, option in options), ANSWER]
    return "\n".join(lines)


def choice_prompt(question: Question, shots: Sequence[Question] = ()) -> str:
    """The question after worked examples, its options under letters; " A" … " D" may follow.

    Without a space at its end: the space belongs to the letter, with which it is one token.

    Args:
        question: to be answered.
        shots: examples with their answers, perhaps none.
    """
    subject = f" about {question.subject}" if question.subject else ""
    heading = f"Multiple choice questions{subject}, with answers.\n\n"
    asked = [f"{listed(shot)} {LETTERS[shot.answer]}\n\n" for shot in shots]
    return "".join((heading, *asked, listed(question)))


def open_prompt(question: Question, shots: Sequence[Question] = ()) -> str:
    """The question after worked examples, without its options; the text of one may follow."""
    asked = [f"{_open(shot)} {shot.choices[shot.answer]}\n\n" for shot in shots]
    return "".join((*asked, _open(question)))


def few_shots(question: Question, examination: Iterable[Question], count: int) -> list[Question]:
    """The first questions of the same subject, without this one or a copy: so all can be asked.

    Raises:
        ValueError: the subject has fewer others.
    """
    others = (q for q in examination if q.subject == question.subject and q != question)
    shots = list(islice(others, count))
    if len(shots) < count:
        raise ValueError(
            f"{count} shots were asked for, and beside {question.question!r} its subject "
            f"{question.subject!r} has {len(shots)} questions; ask for fewer"
        )
    return shots


def score_questions(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    questions: Sequence[Question],
    shots: int = 0,
    by: Collection[str] = tuple(WAYS),
    examples: Sequence[Question] = (),
) -> Iterator[Scored]:
    """Reads each question and yields what every way compares.

    A text that questions share, such as their examples, is read once, and so is a question for all
    of its options: see `Reader`.

    Args:
        model: in evaluation mode.
        tokenizer: of that model.
        questions: those of a subject one after the other, where they have shots.
        shots: examples before each, see `few_shots`.
        by: ways that are going to be asked for; what none of them needs isn't read.
        examples: where shots are taken from, as MMLU has a set for them; the questions if none.

    Raises:
        ValueError: too many shots, or a question beyond the model's context.
    """
    listed, opened, alone = (Reader(model, tokenizer) for _ in range(3))
    for question in questions:
        before = few_shots(question, examples or questions, shots)
        options = [f" {choice}" for choice in question.choices]
        letters = [f" {letter}" for letter in LETTERS[: len(options)]]
        letter_logps: list[float] = []
        option_logps: list[float] = []
        alone_logps: list[float] = []
        if "letter" in by:
            letter_logps = listed.logps(choice_prompt(question, before), letters)
        if set(by) - {"letter"}:
            option_logps = opened.logps(open_prompt(question, before), options)
        if "unconditional" in by:
            alone_logps = alone.logps(ANSWER, options)
        tokens = tuple(len(opened.ids(option)) for option in options)
        logps = (tuple(letter_logps), tuple(option_logps), tuple(alone_logps))
        yield Scored(question, tokens, *logps)


def read_questions(path: str | Path) -> list[Question]:
    """Reads JSON lines with the fields of MMLU: question, choices, answer and, if any, subject.

    An answer is a number from 0, as MMLU is published, or a letter.

    Raises:
        ValueError: a line that holds something else; it says which. Or no line.
    """
    return read_json_lines(path, question_of)


def question_of(fields: dict[str, Any]) -> Question:
    """A question from the fields of its line. Raises ValueError or KeyError for wrong ones."""
    asked, choices, answer = fields["question"], fields["choices"], fields["answer"]
    if not isinstance(choices, list):
        raise ValueError(f"choices must be a list, got {choices!r}")
    if isinstance(answer, str) and answer in LETTERS:
        answer = LETTERS.index(answer)
    if type(answer) is not int:
        raise ValueError(f"answer must be a number from 0 or a letter from A, got {answer!r}")
    return Question(str(asked), tuple(map(str, choices)), answer, fields.get("subject", ""))


def _open(question: Question) -> str:
    return f"Question: {question.question}\n{ANSWER}"


def _ratios(logps: Iterable[float], lengths: Iterable[int]) -> Iterator[float]:
    return (logp / length for logp, length in zip(logps, lengths, strict=True))
