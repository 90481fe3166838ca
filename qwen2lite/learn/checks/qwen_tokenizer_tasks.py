"""What the exercise 12_qwen_tokenizer asks beside encoding: a stream to text, a file to ids."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, update_wrapper
from typing import Any

from qwen2lite.learn.contract import Mistake, call, describe, usual_reason
from qwen2lite.learn.mutants.qwen_tokenizer_tasks import MUTANTS

Part = Callable[..., Any]


def check_read_stream(read_stream: Part) -> Iterator[str]:
    """What has arrived after each token: by hand, then for a text in four scripts, cut anywhere."""
    _require_arrivals(read_stream, [b" \xe6\xa0", b"\xb9"], (" ", "根", ""))
    yield "a character in two tokens comes with the second, and what is whole doesn't wait"
    _require_arrivals(read_stream, [b"\xe6\xa0", b"\xb9\xe6"], ("", "根", "\ufffd"))
    yield "half a character at the end is told by U+FFFD"
    one_by_one = [bytes([byte]) for byte in "é🦙".encode()]
    _require_arrivals(read_stream, one_by_one, ("", "é", "", "", "", "🦙", ""))
    yield "byte by byte"
    _require_no_waiting(read_stream)
    yield "a byte that belongs to no character doesn't stop the stream"


def _require_no_waiting(part: Part) -> None:
    """After a byte that nothing can complete: whether it comes with its token or the next is free."""
    pieces, wanted = [b"a\xff", b"b"], "a\ufffdb"
    got = call(partial(_arrivals, part), pieces, name="read_stream")
    before, after = "".join(got[:-1]), got[-1]
    if (before, after) != (wanted, ""):
        raise Mistake(
            f"The tokens 61 ff, 62 give {before!r} before the end and {after!r} after it; "
            f"wanted {wanted!r} before the end.",
            usual_reason(_streams(), got, pieces)
            or "FF stands in no character, so waiting for the rest of it is in vain.",
        )


def _streams() -> list[Part]:
    """The mutants, each asked in the way in which the contract asks."""
    return [update_wrapper(partial(_arrivals, m), m) for m in MUTANTS["read_stream"]]


def _arrivals(part: Part, pieces: Sequence[bytes]) -> tuple[str, ...]:
    """The text that came after each piece was taken, and last what came after the end."""
    arrived, taken = [""] * (len(pieces) + 1), 0

    def feed() -> Iterator[bytes]:
        nonlocal taken
        for number, piece in enumerate(pieces):
            taken = number
            yield piece
        taken = len(pieces)

    for text in part(feed()):
        if not isinstance(text, str):
            raise Mistake(f"read_stream gave {describe(text)}; text was wanted.")
        arrived[taken] += text
    return tuple(arrived)


def _require_arrivals(part: Part, pieces: list[bytes], wanted: tuple[str, ...]) -> None:
    got = call(partial(_arrivals, part), pieces, name="read_stream")
    if got != wanted:
        tokens = ", ".join(piece.hex(" ") for piece in pieces)
        raise Mistake(
            f"After each of the tokens {tokens}, and after the end, there came {list(got)}; "
            f"wanted {list(wanted)}.",
            usual_reason(_streams(), got, pieces),
        )


def check_mended_merges(mended_merges: Part) -> Iterator[str]:
    """Files of three merges by hand: with a first line, without, and without a last line end."""
    with_version = {("h", "e"): 256, ("#", "#"): 257, ("he", "y"): 258}
    _require_ids(mended_merges, "#version: 0.2\nh e\n# #\nhe y\n", with_version)
    yield 'a merge may begin with "#"; the line with the version is none'
    _require_ids(mended_merges, "h e\n# #\n", {("h", "e"): 256, ("#", "#"): 257})
    _require_ids(mended_merges, "# #\nh e\n", {("#", "#"): 256, ("h", "e"): 257})
    yield 'a file may begin with its first merge, also with "# #"'
    _require_ids(mended_merges, "#version: 0.2\n# #\nh e", {("#", "#"): 256, ("h", "e"): 257})
    yield "the last line counts, whether or not a line end follows"


def _require_ids(part: Part, text: str, wanted: dict[tuple[str, str], int]) -> None:
    got = call(part, text, name="mended_merges")
    if got != wanted:
        raise Mistake(
            f"The file {text!r} gives {got if isinstance(got, dict) else describe(got)}; "
            f"wanted {wanted}.",
            usual_reason(MUTANTS["mended_merges"], got, text),
        )
