"""Wrong ways to read a stream of tokens and a file of merges, for the exercise 12_qwen_tokenizer."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def token_by_token(pieces: Iterable[bytes]) -> Iterator[str]:
    """Every token is decoded alone, and of a character in two tokens each half becomes U+FFFD
    (mlc-llm #804, exo #1691). Hold back what isn't whole yet."""
    for piece in pieces:
        yield piece.decode("utf-8", "replace")


def halves_dropped(pieces: Iterable[bytes]) -> Iterator[str]:
    """Half a character is thrown away, so a character in two tokens is lost altogether
    (cog-llama-template #75). Keep the bytes for the next token."""
    for piece in pieces:
        yield piece.decode("utf-8", "ignore")


def rest_forgotten(pieces: Iterable[bytes]) -> Iterator[str]:
    """What was held back at the end is lost. A text may end in the middle of a character, where the
    limit of tokens is reached: give U+FFFD for it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield decoder.decode(piece)


def waits_for_the_end(pieces: Iterable[bytes]) -> Iterator[str]:
    """All tokens are collected first, and nothing is shown before the last. Give each character as
    soon as it is whole."""
    yield b"".join(pieces).decode("utf-8", "replace")


def held_too_long(pieces: Iterable[bytes]) -> Iterator[str]:
    """Text is given only where all bytes so far end with a whole character. When a token brings a
    whole character and half of the next, the whole one can be shown already."""
    held = b""
    for piece in pieces:
        held += piece
        try:
            yield held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
    yield held.decode("utf-8", "replace")


def stopped_by_a_bad_byte(pieces: Iterable[bytes]) -> Iterator[str]:
    """A byte that belongs to no character is held back as if its rest would still come, and all that
    follows waits for the end too. Only where bytes are missing at the end does waiting help: give
    U+FFFD for any other, as an incremental decoder with "replace" does."""
    held = b""
    for piece in pieces:
        held += piece
        try:
            whole, held = held.decode(), b""
        except UnicodeDecodeError as error:
            whole, held = held[: error.start].decode(), held[error.start :]
        yield whole
    yield held.decode("utf-8", "replace")


def first_sign_taken_for_version(text: str) -> dict[tuple[str, str], int]:
    """A first line that begins with "#" is dropped, but it may be the merge "# #", where a file names
    no version. Only a line that begins with "#version:" is no merge."""
    lines = text.splitlines()
    return _numbered(lines[1:] if lines[0].startswith("#") else lines)


def signs_taken_for_comments(text: str) -> dict[tuple[str, str], int]:
    """Every line that begins with "#" is taken for a comment, but "# #" is a merge: all after it
    get other ids. Only a first line that begins with "#version:" is none (transformers keeps a test
    for it, test_slow_tokenizer_token_with_number_sign)."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [tuple(line.split(" ")) for line in lines]
    return {(left, right): 256 + number for number, (left, right) in enumerate(pairs)}


def first_line_always_dropped(text: str) -> dict[tuple[str, str], int]:
    """The first line is dropped whatever it says. Where a file has no "#version:" line, that is the
    first merge."""
    return _numbered(text.splitlines()[1:])


def last_line_dropped(text: str) -> dict[tuple[str, str], int]:
    """The last line is dropped, as if the file always ended with an empty one. Where it doesn't, a
    merge is lost: `splitlines` knows both."""
    lines = text.split("\n")[:-1]
    return _numbered(lines[1:] if lines and lines[0].startswith("#version:") else lines)


def version_line_counted(text: str) -> dict[tuple[str, str], int]:
    """The "#version:" line is counted as a merge, and every id is one too high."""
    lines = text.splitlines()
    first = 257 if lines[0].startswith("#version:") else 256
    return _numbered(lines[first - 256 :], first)


def bytes_not_counted(text: str) -> dict[tuple[str, str], int]:
    """The ids begin at 0, but 0 to 255 are the bytes. The first merge gets 256."""
    lines = text.splitlines()
    return _numbered(lines[1:] if lines[0].startswith("#version:") else lines, 0)


def _numbered(lines: list[str], first: int = 256) -> dict[tuple[str, str], int]:
    pairs = [line.split(" ") for line in lines]
    return {(left, right): first + number for number, (left, right) in enumerate(pairs)}


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "read_stream": (
        token_by_token,
        halves_dropped,
        rest_forgotten,
        waits_for_the_end,
        held_too_long,
        stopped_by_a_bad_byte,
    ),
    "mended_merges": (
        first_sign_taken_for_version,
        signs_taken_for_comments,
        first_line_always_dropped,
        last_line_dropped,
        version_line_counted,
        bytes_not_counted,
    ),
}
"""The wrong versions of each task."""
