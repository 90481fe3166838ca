"""Wrong ways to cut a text at its control tokens, for the exercise 12_qwen_tokenizer."""

from collections.abc import Callable, Collection
from typing import Any

import regex


def not_escaped(text: str, control: Collection[str]) -> list[str]:
    r"""The names went into a regular expression as they are, and there "|" means "or": every "<" and
    ">" became a control token. `re.escape` puts backslashes before such signs."""
    if not control:
        return [text]
    return [piece for piece in regex.split(f"({'|'.join(control)})", text) if piece]


def only_the_first(text: str, control: Collection[str]) -> list[str]:
    """Only the first occurrence of each control token is found: the text after it has to be
    searched too."""
    pieces = [text]
    for name in control:
        for place, piece in enumerate(pieces):
            if name in piece and piece != name:
                before, _, after = piece.partition(name)
                pieces[place : place + 1] = [before, name, after]
                break
    return [piece for piece in pieces if piece]


def control_tokens_lost(text: str, control: Collection[str]) -> list[str]:
    """The control tokens are gone: `re.split` gives what it split at only where the pattern is in
    brackets, a group."""
    if not control:
        return [text]
    return [p for p in regex.split("|".join(map(regex.escape, control)), text) if p]


def spaces_eaten(text: str, control: Collection[str]) -> list[str]:
    """White space around a control token is gone. Qwen2's control tokens take nothing with them
    (lstrip and rstrip are false), and the line end after <|im_end|> counts."""
    return [piece for p in pieces_of(text, control) if (piece := p.strip())]


def empty_pieces(text: str, control: Collection[str]) -> list[str]:
    """Empty pieces stand between two control tokens or at an end. They have no ids: leave them
    out."""
    if not control:
        return [text]
    return regex.split(f"({'|'.join(map(regex.escape, control))})", text)


def pieces_of(text: str, control: Collection[str]) -> list[str]:
    """The right pieces: control tokens, what stands between, nothing empty."""
    if not control:
        return [text]
    pattern = f"({'|'.join(map(regex.escape, control))})"
    return [piece for piece in regex.split(pattern, text) if piece]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "split_control": (
        not_escaped,
        only_the_first,
        control_tokens_lost,
        spaces_eaten,
        empty_pieces,
    ),
}
"""The wrong versions of the task."""
