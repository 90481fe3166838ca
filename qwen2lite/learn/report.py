"""`write_report()`: a page to hand in, on whose code a model is, what it says, how far it is right."""

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import textwrap
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torch

from qwen2lite.infer.clock import Clock
from qwen2lite.infer.generate import generate_ids
from qwen2lite.learn.doctor import Diagnosis, doctor
from qwen2lite.learn.keep import learner_home, my_parts, receipt, require_yours, with_parts
from qwen2lite.learn.machine import check_machine
from qwen2lite.learn.work import REPOSITORY, lesson_model
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import encode_chat
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.weights.sources import default_model, resolve

QUESTION = "In one sentence: what is a language model?"
_READ, _WRITTEN, _COMPARED = 128, 48, 20
"""Tokens: of the text whose logits are compared, of an answer, and of its beginning that is."""
_NOT_RUN = "So no model was run with it.\n"
_OWN_WORDS = """## In my own words

- What surprised me:
- Where I was stuck:
- What I'd do differently:
"""


def write_report(
    model_name: str | Path | None = None,
    parts: Parts | None = None,
    folder: str | Path | None = None,
    prompt: str = QUESTION,
) -> Path:
    """Writes a report on a model of your parts, in Markdown, and returns where it lies.

    A part that is wrong, or that raises, doesn't end it: the report then says what was found. Both
    models run in float32 on the processor, so that the difference is of the code and not of rounding.

    Args:
        model_name: see `qwen2lite.weights.sources`; None is the fetched 0.5B, else the tiny model.
        parts: yours; None is what you kept.
        folder: where to write; None is the learner's folder. An earlier report is never overwritten.
        prompt: what both models answer, greedily.

    Raises:
        ValueError: no part is yours, a kept file is broken, or an empty prompt or one too long.
        FileNotFoundError: the model isn't there.
    """
    kept = my_parts() if parts is None else parts
    require_yours(kept)
    if not prompt.strip():
        raise ValueError(f"the prompt is {prompt!r}: write a question for your model")
    source = str(model_name or lesson_model())
    files = _weight_files(source)
    found = _diagnoses(kept, source)
    reference = Qwen2.from_pretrained(source, torch.float32, "cpu")
    sections = [
        "# Is it mine?\n",
        f"{datetime.now():%Y-%m-%d %H:%M}, qwen2lite {importlib.metadata.version('qwen2lite')}\n",
        *_which_weights(source, model_name, files),
        "## Whose code\n",
        _verbatim(receipt(kept, reference.config)),
        "## What the doctor says\n",
        *(f"On {where}:\n\n{_verbatim(what)}" for where, what in found.items()),
        *(_compared(kept, source, reference, prompt) if len(found) > 1 else [_NOT_RUN]),
        "## The machine\n",
        _verbatim(_printed_machine()),
        "## The files\n",
        _verbatim(_kept_files() if parts is None else "The parts came from a notebook, unkept."),
        _OWN_WORDS,
    ]
    return _written("\n".join(sections), Path(folder or learner_home()))


@dataclass
class _Said:
    """What a model made of the text and of the prompt."""

    logits_TV: torch.Tensor
    ids: list[int] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    @property
    def rates(self) -> str:
        """The wait and the tokens a second, in words."""
        return self.clock.rates(len(self.ids))


def _said(model: Qwen2, tokenizer: Qwen2Tokenizer, prompt: str) -> _Said:
    text = (REPOSITORY / "data" / "prose_and_code.txt").read_text(encoding="utf-8")
    with torch.inference_mode():
        said = _Said(model(torch.tensor([tokenizer.encode(text)[:_READ]]))[0])
    prompt_ids = encode_chat(tokenizer, [{"role": "user", "content": prompt}])
    said.clock = Clock()
    for token in generate_ids(model, prompt_ids, _WRITTEN, eos_ids=tokenizer.eos_ids):
        said.clock.tick()
        said.ids.append(token)
    return said


def _diagnoses(parts: Parts, source: str) -> dict[str, Diagnosis]:
    """What the doctor says of small models and of this one, in words of where it looked.

    It is asked before a model is loaded here, so that there is never more than one in memory.
    """
    found = {"small models": doctor(parts)}
    # A part that came to no end in its check would come to none in a model.
    if found["small models"].case != "before any model":
        found[Path(source).name] = doctor(parts, source)
    return found


def _compared(parts: Parts, source: str, reference: Qwen2, prompt: str) -> list[str]:
    """The sections on the difference to the reference and on both answers."""
    tokenizer = Qwen2Tokenizer.from_pretrained(source)
    wanted = _said(reference, tokenizer, prompt)
    heading = "## Beside the reference\n"
    try:
        mine = _said(with_parts(reference, parts), tokenizer, prompt)
        table = _table(mine, wanted)
    except Exception as error:  # of any kind: a learner's own parts are at work here
        return [
            heading,
            "Run by itself it raised:\n",
            _verbatim(f"{type(error).__name__}: {error}"),
        ]
    answers = (tokenizer.decode(mine.ids), tokenizer.decode(wanted.ids))
    theirs = "the same" if mine.ids == wanted.ids else answers[1]
    said = {"Asked": prompt, "Mine": answers[0], "The reference": theirs}
    spoken = [f"{who}:\n\n{_verbatim(what)}" for who, what in said.items()]
    return [heading, table, "## What it answers\n", *spoken]


def _table(mine: _Said, wanted: _Said) -> str:
    off = (mine.logits_TV - wanted.logits_TV).abs().max().item()
    mine_ids, ids = mine.ids[:_COMPARED], wanted.ids[:_COMPARED]
    pairs = zip(mine_ids, ids, strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    same = f"all {alike}" if mine_ids == ids else f"the first {alike} of {len(ids)}"
    rows = (
        ("in float32, on the processor", "measured"),
        ("---", "---"),
        (f"largest difference of a logit, {len(mine.logits_TV)} tokens of text", f"{off:.2g}"),
        ("tokens of the answer that are the same", same),
        ("speed, mine", mine.rates),
        ("speed, the reference as it is written, not packed", wanted.rates),
    )
    return "".join(f"| {what} | {value} |\n" for what, value in rows)


def _which_weights(source: str, asked_for: str | Path | None, files: list[Path]) -> list[str]:
    lines = [f"{_sha256(path)}  {path.name}  {path.stat().st_size:,} bytes" for path in files]
    sections = [f"The weights are those of {Path(source).name}.\n"]
    if asked_for is None and default_model() is None:
        sections[0] = "No real weights were fetched: the tiny model of data/ stands in for them.\n"
    return [*sections, _verbatim("\n".join(lines))]


def _weight_files(source: str) -> list[Path]:
    place = resolve(source)
    return [place] if place.is_file() else sorted(place.glob("*.safetensors"))


def _kept_files() -> str:
    files = sorted((learner_home() / "my_qwen2").glob("*.py"))
    return "\n".join(f"{_sha256(path)}  {path.name}" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _printed_machine() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        check_machine()
    return printed.getvalue()


def _verbatim(thing: object) -> str:
    """Four spaces before each line: whatever stands in it, Markdown shows it as it is."""
    return textwrap.indent(f"{thing}".strip("\n"), "    ", lambda _: True) + "\n"


def _written(text: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"report-{datetime.now():%Y-%m-%d-%H%M%S}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    path = next(one for one in (folder / f"{name}.md" for name in names) if not one.exists())
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return path
