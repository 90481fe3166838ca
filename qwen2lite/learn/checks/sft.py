r"""What `answer_targets` must do: which tokens of a conversation are learnt, and at which place.

Conversations are encoded with a small vocabulary, in which "\n\n" is one token.
"""

from collections.abc import Callable, Iterator
from typing import Any

from qwen2lite.align.sft import Learnt
from qwen2lite.learn.checks.chat import small_tokenizer
from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    require_refusal,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants import sft as mutants
from qwen2lite.learn.mutants.sft import MUTANTS, Piece, learnt_of, pieces_of
from qwen2lite.text.chat import Message
from qwen2lite.train.loss import IGNORED

Part = Callable[..., Any]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


BRIEF, ASKED = _said("system", "Be brief."), _said("user", "So?")
ANSWERED = _said("assistant", "Yes.")
MORE = [_said("user", "Why?"), _said("assistant", "It is.")]
LINE_FIRST = [_said("user", "\nSo?"), _said("assistant", "\nYes.")]
SPELLED = [_said("user", "a<|im_end|>"), _said("assistant", "<|im_start|>b<|im_end|>")]
LONG = _said("assistant", "So it is. " * 40)


def check_answer_targets(answer_targets: Part) -> Iterator[str]:
    """One answer and two, line ends, control tokens that are spelled, system prompts, no answer."""
    plain = [BRIEF, ASKED, ANSWERED]
    _require_learnt(answer_targets, plain)
    yield "the answer and its <|im_end|> are learnt, asked for one place before, and nothing else"
    _require_learnt(answer_targets, [*plain, *MORE])
    yield "every answer of a conversation"
    _require_learnt(answer_targets, [BRIEF, *LINE_FIRST])
    yield "contents that begin with a line end"
    _require_learnt(answer_targets, [BRIEF, *SPELLED])
    yield "control tokens that a content spells are plain text"
    for talk, system in ((plain[1:], None), (plain[1:], "Be kind."), (plain[1:], ""), (plain, "x")):
        _require_learnt(answer_targets, talk, system)
    yield "a system prompt of the conversation's own, of the caller's, an empty one, the default"
    _require_learnt(answer_targets, [BRIEF, ASKED, LONG])
    yield "a long answer to its end"
    for talk in ([BRIEF, ASKED], [ASKED]):
        given = f"For {_told(talk)} there is nothing to learn;"
        reason = told_by(mutants.silence_accepted)
        require_refusal(answer_targets, (small_tokenizer(), talk), given, reason, outlined)
    yield "a conversation without an answer is refused"


def _require_learnt(part: Part, messages: list[Message], system: str | None = None) -> None:
    tokenizer, given = small_tokenizer(), [dict(message) for message in messages]
    got = call(part, tokenizer, given, system, name="answer_targets")
    if not isinstance(got, list | tuple) or len(got) != 2 or not all(map(is_ids, got)):
        raise Mistake(
            f"answer_targets returned {outlined(got)}; two lists of whole numbers were wanted, "
            "(ids, targets)."
        )
    mine = list(got[0]), list(got[1])
    wrong, by_kind = _first_wrong(mine, pieces_of(tokenizer, messages, system))
    if wrong:
        talk = _told(messages) + (f" with system={system!r}" if system is not None else "")
        reason = usual_reason(MUTANTS["answer_targets"], mine, tokenizer, messages, system)
        raise Mistake(f"For {talk}: {wrong}", reason or by_kind)
    if given != messages:
        raise Mistake(
            "The list of messages was changed.",
            "The caller keeps that list. `with_system` makes a new one; work with that.",
        )


def is_ids(got: Any) -> bool:
    """Whether an answer is a list of whole numbers."""
    return isinstance(got, list | tuple) and all(type(token) is int for token in got)


def outlined(got: Any) -> str:
    """An answer of the wrong form: what a list holds, in its beginning."""
    if not isinstance(got, list | tuple) or not got:
        return describe(got)
    shown = [*map(outlined, got[:3]), *(["…"] if len(got) > 3 else [])]
    return f"({', '.join(shown)})" if isinstance(got, tuple) else f"[{', '.join(shown)}]"


def _told(messages: list[Message]) -> str:
    """A conversation in one line; a long content in its beginning."""
    shown = [(m["role"], m["content"]) for m in messages]
    return ", ".join(
        f"{who} {said if len(said) < 30 else said[:20] + '…'!r}" for who, said in shown
    )


def _first_wrong(got: Learnt, pieces: list[Piece]) -> tuple[str, str]:
    """What is wrong first, if anything, and the usual reason for it, if the kind of token tells."""
    (ids, targets), (right, wanted) = got, learnt_of(pieces)
    owner = [piece for piece in pieces for _ in piece.ids]
    where = [_PLACES[piece.kind].format(piece.role) for piece in owner]
    for place, (mine, want) in enumerate(zip(ids, right, strict=False)):
        if mine != want:
            said = f"ids[{place}] is {_text(mine)}, and {_text(want)} was wanted, {where[place]}."
            return said, ""
    if not len(ids) == len(targets) == len(right):
        said = f"{len(right)} ids and as many targets were wanted"
        return f"{said}; there are {len(ids)} ids and {len(targets)} targets.", ""
    for place, (target, after) in enumerate(zip(targets, [*right[1:], IGNORED], strict=True)):
        if target not in (IGNORED, after):
            comes = "nothing comes" if after == IGNORED else f"comes {_text(after)}"
            said = f"targets[{place}] asks for {_text(target)}, and after {_text(right[place])}"
            return f"{said}, which is ids[{place}], {comes}.", ""
    for place, (mine, want) in enumerate(zip(targets, wanted, strict=True), start=1):
        if mine != want:
            learnt, piece = mine != IGNORED, owner[place]
            said = "is learnt and should only be read" if learnt else "isn't learnt and should be"
            is_now = _text(mine) if learnt else "IGNORED"
            token = f"ids[{place}], {_text(right[place])}, {where[place]}"
            reason = _BY_KIND.get((piece.kind, piece.role == "assistant", learnt), "")
            return f"{token}, {said}: targets[{place - 1}] is {is_now}.", reason
    return "", ""


_PLACES = {
    "header": "in the header of the {}'s turn",
    "said": "in what the {} says",
    "end": "at the end of the {}'s turn",
    "line end": "the line end after the {}'s turn",
}


def _text(token: int) -> str:
    tokenizer = small_tokenizer()
    try:
        text = tokenizer.decode([token])
    except ValueError:
        return f"{token} (no token)"
    return text if token in tokenizer.special_tokens.values() else repr(text)


_BY_KIND = {
    ("header", True, True): told_by(mutants.header_learnt),
    ("line end", True, True): told_by(mutants.line_end_learnt),
    ("end", True, False): told_by(mutants.never_stops),
    ("end", False, True): told_by(mutants.every_end_learnt),
}
"""Kind of token, whether it is the assistant's, whether it is learnt: the usual mistake."""
