"""evaluate: how many questions of a file a model answers rightly, and how sure that number is."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen2lite.evaluate.choice import Question
    from qwen2lite.evaluate.generated import Problem
    from qwen2lite.model.qwen2 import Qwen2
    from qwen2lite.text.tokenizer import Qwen2Tokenizer

BY = ("letter", "sum", "token", "byte", "unconditional")
"""The keys of `choice.WAYS`, which --help can say without loading PyTorch."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the command line."""
    evaluate = commands.add_parser("evaluate", help="right answers to a file of questions")
    flag = evaluate.add_argument
    flag(
        "file", help="JSON lines with the fields of MMLU or GSM8K, such as data/exam/choices.jsonl"
    )
    flag("--model", help="name, folder or .gguf file (default: the fetched 0.5B)")
    flag("--shots", type=int, default=5, help="examples before each question (default: 5)")
    flag("--examples", help="another file to take them from (default: the questions themselves)")
    flag(
        "--by", choices=BY, default="letter", help="what decides between options (default: letter)"
    )
    flag("--dtype", default="auto", help="as in generate (default: auto)")
    flag("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    flag("--json", action="store_true", help="print one JSON object in place of the table")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(flags: argparse.Namespace) -> None:
    from qwen2lite.commands.talk import source_of
    from qwen2lite.evaluate.json_lines import read_json_lines
    from qwen2lite.infer.load import load
    from qwen2lite.text.tokenizer import Qwen2Tokenizer

    if flags.shots < 0:
        raise ValueError(f"--shots must be 0 or more, got {flags.shots}")
    asked = read_json_lines(flags.file, _asked)
    examples = read_json_lines(flags.examples, _asked) if flags.examples else []
    if len({type(one) for one in [*asked, *examples]}) > 1:
        raise ValueError("questions with choices and sums are mixed; make two files of it")
    source = source_of(flags)
    tokenizer = Qwen2Tokenizer.from_pretrained(source)
    model = load(source, flags.dtype, flags.device)
    answered = list(_answers(flags, model, tokenizer, asked, examples))
    groups: dict[str, list[bool]] = {}
    for subject, right in answered:
        groups.setdefault(subject, []).append(right is True)
    rows = [_row(subject, right) for subject, right in sorted(groups.items())]
    total = _row("all", [right is True for _, right in answered])
    total["without_number"] = sum(right is None for _, right in answered)
    if flags.json:
        settings = {"model": str(source), "file": flags.file, "shots": flags.shots}
        by = {"by": flags.by} if hasattr(asked[0], "choices") else {}
        print(json.dumps(settings | by | {"subjects": rows, "all": total}))
    else:
        _show(rows if len(rows) > 1 else [], total)


def _asked(fields: dict[str, Any]) -> "Question | Problem":
    from qwen2lite.evaluate.choice import question_of
    from qwen2lite.evaluate.generated import problem_of

    return question_of(fields) if "choices" in fields else problem_of(fields)


def _answers(
    flags: argparse.Namespace,
    model: "Qwen2",
    tokenizer: "Qwen2Tokenizer",
    asked: Sequence[Any],
    examples: Sequence[Any],
) -> Iterator[tuple[str, bool | None]]:
    """Yields each question's subject, and whether the answer is right; None is one without a number."""
    from tqdm import tqdm

    from qwen2lite.evaluate.choice import is_right, score_questions
    from qwen2lite.evaluate.generated import solve

    def bar(answers: Iterable[Any]) -> Iterable[Any]:
        return tqdm(answers, desc=flags.file, total=len(asked), unit=" questions")

    if hasattr(asked[0], "choices"):
        together = sorted(asked, key=lambda question: question.subject)  # they share their shots
        order = (together, flags.shots, (flags.by,), examples)
        for scored in bar(score_questions(model, tokenizer, *order)):
            yield scored.question.subject, is_right(scored, flags.by)
    else:
        for _, written in bar(solve(model, tokenizer, asked, flags.shots, examples=examples)):
            yield "", None if written.number is None else written.is_right


def _row(subject: str, right: list[bool]) -> dict[str, Any]:
    from qwen2lite.evaluate.uncertainty import wilson

    low, high = wilson(sum(right), len(right))
    counts = {"subject": subject, "right": sum(right), "total": len(right)}
    return counts | {"accuracy": sum(right) / len(right), "low": low, "high": high}


def _show(rows: list[dict[str, Any]], total: dict[str, Any]) -> None:
    width = max(len(row["subject"]) for row in [*rows, total])
    for row in [*rows, total]:
        share, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
        of = f"{row['right']} of {row['total']}"
        print(f"{row['subject']:<{width}}  {share:5.1f} %  {low:5.1f} – {high:5.1f} %  {of}")
    if total["without_number"]:
        print(f"{total['without_number']} answers hold no number")
    print("the interval holds the true share in 95 of 100 such samples")
