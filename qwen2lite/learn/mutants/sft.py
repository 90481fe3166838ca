r"""Wrong answers to the task `answer_targets` of the exercise 71_sft, made of the pieces of its turns.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from qwen2lite.align.sft import Learnt
from qwen2lite.text.chat import Message, default_system, turn_tokens, with_system
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loss import IGNORED

Talk = Sequence[Message]
System = str | None


class Piece(NamedTuple):
    """Some tokens of a turn: its "header", what is "said", its "end" or the "line end" after it."""

    ids: list[int]
    role: str
    kind: str


def pieces_of(
    tokenizer: Qwen2Tokenizer,
    talk: Talk,
    system: System = None,
    apart: Collection[str] = ("assistant",),
    allowed: str = "none",
) -> list[Piece]:
    """A conversation in pieces; the header of a role in `apart` is encoded by itself."""
    start, end = turn_tokens(tokenizer)
    pieces = []
    for message in with_system(talk, default_system(tokenizer) if system is None else system):
        role, content = message["role"], message["content"]
        header, said = (tokenizer.encode(text, allowed) for text in (f"{role}\n", content))
        if role not in apart:
            turn = tokenizer.encode(f"{role}\n{content}", allowed)
            header, said = turn[: len(header)], turn[len(header) :]
        parts = ([start, *header], said, [end], tokenizer.encode("\n"))
        kinds = ("header", "said", "end", "line end")
        pieces += [Piece(ids, role, kind) for ids, kind in zip(parts, kinds, strict=True)]
    return pieces


def is_answer(piece: Piece) -> bool:
    """Whether a piece is to be learnt."""
    return piece.role == "assistant" and piece.kind in ("said", "end")


def learnt_of(
    pieces: Sequence[Piece], learn: Callable[[Piece], bool] = is_answer, shift: int = 1
) -> Learnt:
    """The ids of some pieces, and at each place the id `shift` places on, if it is to be learnt."""
    ids = [token for piece in pieces for token in piece.ids]
    masked = [token if learn(piece) else IGNORED for piece in pieces for token in piece.ids]
    places = range(shift, shift + len(ids))
    return ids, [masked[place] if 0 <= place < len(ids) else IGNORED for place in places]


def everything_learnt(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """Everything is learnt, the questions too: the mask is lost. Nothing crashes, the loss falls, and
    the model learns to ask as well (two options together lost the mask without a word: trl #3781)."""
    return learnt_of(pieces_of(tokenizer, talk, system), lambda piece: True)


def header_learnt(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The header of the assistant's turn is learnt. The program that asks writes it, and a model that
    learnt to write it as well may do so (in QwenLM/Qwen #446 answers began with <|im_start|>)."""
    headers = [("assistant", kind) for kind in ("header", "said", "end")]
    return learnt_of(pieces_of(tokenizer, talk, system), lambda p: (p.role, p.kind) in headers)


def never_stops(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The assistant's <|im_end|> isn't learnt, so that the model answers and never stops (in torchtune
    it was learnt or not, depending on an option about something else: #2792)."""
    pieces = pieces_of(tokenizer, talk, system)
    return learnt_of(pieces, lambda piece: is_answer(piece) and piece.kind == "said")


def line_end_learnt(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The line end after the assistant's <|im_end|> is learnt. At <|im_end|> the answer is over; the
    program that asks writes what comes after it."""
    kinds = ("said", "end", "line end")
    pieces = pieces_of(tokenizer, talk, system)
    return learnt_of(pieces, lambda p: p.role == "assistant" and p.kind in kinds)


def every_end_learnt(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The <|im_end|> of other turns is learnt too. The model doesn't write those turns, so it has no
    end of them to find (an example of Qwen's had it so: Qwen-VL #313). Ask whose turn it is."""
    pieces = pieces_of(tokenizer, talk, system)
    return learnt_of(pieces, lambda piece: is_answer(piece) or piece.kind == "end")


def not_shifted(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """Each token is asked for itself, and that is easy: it is just being read. Leave out the first
    target, so that the others move one place to the front, and put IGNORED at the end."""
    return learnt_of(pieces_of(tokenizer, talk, system), shift=0)


def shifted_back(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """Shifted the wrong way: each position is asked for the token *before* it, which it has read. The
    target of a position is the token after it."""
    return learnt_of(pieces_of(tokenizer, talk, system), shift=-1)


def mask_not_shifted(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The targets are shifted and the mask is not. Then the first token of an answer isn't learnt, and
    the line end after it is (verl #3287). Mask first and shift then: so both move together."""
    ids, own = learnt_of(pieces_of(tokenizer, talk, system), shift=0)
    after = [*ids[1:], IGNORED]
    return ids, [IGNORED if t == IGNORED else token for t, token in zip(own, after, strict=True)]


def last_answer_only(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """Only the last answer is learnt. Each of them is there to be learnt, and one pass through the
    model gives the loss of all."""
    pieces = pieces_of(tokenizer, talk, system)
    last = [piece for piece in pieces if is_answer(piece)][-2:]
    return learnt_of(pieces, lambda piece: any(piece is own for own in last))


def answer_merged(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    r"""Header and answer are encoded as one text. Where the answer begins with a line end, "\n\n" is
    one token, half of it read and half learnt; a model that is asked finds the header's "\n" there, by
    itself (Qwen3-VL #1199). Encode header and answer one by one."""
    return learnt_of(pieces_of(tokenizer, talk, system, apart=()))


def question_apart(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    r"""Header and content of the user are encoded one by one. Where the content begins with a line end
    that gives "\n", "\n"; a chat encodes them as one text, and there it is the one token "\n\n"."""
    return learnt_of(pieces_of(tokenizer, talk, system, ("system", "user", "assistant")))


def control_tokens_believed(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """Control tokens that a content spells out become real ones: whoever writes <|im_end|> into a
    message ends the turn with it. Encode contents with "none"."""
    return learnt_of(pieces_of(tokenizer, talk, system, allowed="all"))


def default_system_always(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """The system prompt that the caller gives is ignored, and the default takes its place. The default
    is for where `system` is None."""
    return learnt_of(pieces_of(tokenizer, talk))


def empty_system_replaced(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """An empty system prompt is taken for none, since "" is false in Python. Who gives an empty one
    wants it empty: ask whether `system is None`."""
    return learnt_of(pieces_of(tokenizer, talk, system or None))


def answer_cut(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """A long conversation is cut off. That takes the end of the answer, and <|im_end|> with it; what is
    left teaches the model not to stop. What is too long for a row is left out whole, and later."""
    ids, targets = learnt_of(pieces_of(tokenizer, talk, system))
    return ids[:256], targets[:256]


def silence_accepted(tokenizer: Qwen2Tokenizer, talk: Talk, system: System = None) -> Learnt:
    """A conversation without an answer gets nothing but IGNORED. In training it would take up room,
    teach nothing, and nobody would notice: raise a ValueError that says so."""
    return learnt_of(pieces_of(tokenizer, talk, system))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "answer_targets": (
        everything_learnt, header_learnt, never_stops, line_end_learnt, every_end_learnt, not_shifted,
        shifted_back, mask_not_shifted, last_answer_only, answer_merged, question_apart,
        control_tokens_believed, empty_system_replaced, default_system_always, answer_cut,
        silence_accepted,
    ),
}  # fmt: skip
"""The wrong versions of the task."""
