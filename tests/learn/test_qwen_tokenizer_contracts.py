"""The contracts of lesson 12 accept every right answer and tell wrong ones in a clear sentence."""

import codecs
import unicodedata

import numpy as np
import pytest
import regex
from tokenizers import normalizers

from qwen2lite.learn.checks.qwen_tokenizer import shown
from qwen2lite.text.pretokenize import PATTERN
from tests.learn.verdict import verdict


def endings_spelled_out():
    """The same pattern in another hand: classes in another order, an own group for each ending."""
    return (
        r"'(?i:[stmd]|ll|re|ve)|[^\p{N}\p{L}\n\r]{0,1}\p{L}+|\p{N}{1}|\x20?[^\p{N}\p{L}\s]+[\n\r]*"
        r"|\s*[\n\r]+|\s+(?=\s|$)|\s+"
    )


def one_group_a_kind():
    kinds = regex.split(r"(?<!\\)\|(?=\[\^|\\[ps]| \?\[)", PATTERN)
    assert len(kinds) == 7
    return "|".join(f"({kind})" for kind in kinds)


def split_by_search(text, control):
    pieces = []
    while control and (found := [name for name in control if name in text]):
        first = min(found, key=text.index)
        before, _, text = text.partition(first)
        pieces += [before, first]
    return [piece for piece in [*pieces, text] if piece]


def split_by_iterating(text, control):
    pieces, start = [], 0
    if control:
        for match in regex.finditer(r"\L<names>", text, names=list(control)):
            pieces += [text[start : match.start()], match[0]]
            start = match.end()
    return list(filter(None, [*pieces, text[start:]]))


def split_and_filter(text, control):
    either = "|".join(name.replace("|", r"\|") for name in control)
    return [p for p in regex.split(f"({either})", text) if p] if either else [text]


def encode_by_recursion(text, encode_word, special):
    for name, number in special.items():
        if name in text:
            before, _, after = text.partition(name)
            return [
                *encode_by_recursion(before, encode_word, special),
                number,
                *encode_by_recursion(after, encode_word, special),
            ]
    composed = normalizers.NFC().normalize_str(text)
    return [i for match in regex.finditer(PATTERN, composed) for i in encode_word(match[0])]


def encode_in_one_line(text, encode_word, special):
    return [
        number
        for piece in split_by_search(text, list(special))
        for number in (
            [special[piece]]
            if piece in special
            else [
                i
                for word in regex.findall(PATTERN, unicodedata.normalize("NFC", piece))
                for i in encode_word(word)
            ]
        )
    ]


def encode_as_numpy_numbers(text, encode_word, special):
    return list(np.array(encode_in_one_line(text, encode_word, special)))


def encode_as_tuple(text, encode_word, special):
    return tuple(encode_in_one_line(text, encode_word, special))


def stream_by_hand(pieces):
    held = b""
    for piece in pieces:
        held += piece
        while True:
            try:
                text, held = held.decode(), b""
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    text, held = held[: error.start].decode(), held[error.start :]
                else:
                    yield held[: error.start].decode() + "\ufffd"
                    held = held[error.end :]
                    continue
            if text:
                yield text
            break
    if held:
        yield "\ufffd"


def stream_by_codec(pieces):
    decoder = codecs.lookup("utf-8").incrementaldecoder(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece, False)
    yield decoder.decode(b"", True)


def stream_with_iterdecode(pieces):
    return codecs.iterdecode(pieces, "utf-8", "replace")


def merges_by_zip(text):
    lines = text.removesuffix("\n").split("\n")
    lines = lines[lines[0].startswith("#version:") :]
    return {tuple(line.split()): number for number, line in enumerate(lines, 256)}


def merges_by_loop(text):
    ids = {}
    for line in text.splitlines():
        if line.startswith("#version:") and not ids:
            continue
        left, right = line.split(" ")
        ids[left, right] = 256 + len(ids)
    return ids


def merges_by_regex(text):
    body = regex.sub(r"\A#version:.*\n", "", text)
    return {(m[1], m[2]): 256 + i for i, m in enumerate(regex.finditer(r"(\S+) (\S+)", body))}


RIGHT = [
    ("word_pattern", lambda: PATTERN),
    ("word_pattern", endings_spelled_out),
    ("word_pattern", lambda: f"(?:{PATTERN})"),
    ("word_pattern", one_group_a_kind),
    ("split_control", split_by_search),
    ("split_control", split_by_iterating),
    ("split_control", split_and_filter),
    ("encode_text", encode_by_recursion),
    ("encode_text", encode_in_one_line),
    ("encode_text", encode_as_tuple),
    ("encode_text", encode_as_numpy_numbers),
    ("read_stream", stream_by_hand),
    ("read_stream", stream_by_codec),
    ("read_stream", stream_with_iterdecode),
    ("mended_merges", merges_by_zip),
    ("mended_merges", merges_by_loop),
    ("mended_merges", merges_by_regex),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("word_pattern", lambda: regex.compile(PATTERN), "a text was wanted"),
        ("word_pattern", lambda: "(", "'(' is no regular expression"),
        ("word_pattern", lambda: r"\w+", "is cut into ['naïve', '猫', 'über']"),
        ("split_control", lambda text, control: (text,), "a list of texts was wanted"),
        ("split_control", lambda text, control: text, "a list of texts was wanted"),
        ("encode_text", lambda text, encode_word, special: [7], "stand for ['id 7']"),
        ("encode_text", lambda text, encode_word, special: None, "TypeError"),
        ("encode_text", lambda text, encode_word, special: [[1], 2], "stands [1]; a flat list"),
        ("encode_text", lambda text, encode_word, special: ["a"], "stands 'a'; a flat list"),
        ("read_stream", lambda pieces: ["x"], "there came ['x', '', '']"),
        ("read_stream", lambda pieces: iter(pieces), "read_stream gave bytes"),
        ("mended_merges", lambda text: [], "gives list"),
        ("mended_merges", lambda text: {}, "gives {}"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def test_a_stream_that_waits_for_a_byte_that_never_fits_is_told():
    def waits(pieces):
        held = b""
        for piece in pieces:
            held += piece
            whole = held.decode("utf-8", "ignore")
            held = held[len(whole.encode()) :]
            yield whole
        if held:
            yield "\ufffd"

    result = verdict("read_stream", waits)
    assert "wanted 'a\ufffdb' before the end" in result.wrong
    assert "in no character" in result.reason


def test_one_of_two_line_ends_before_letters_is_told_too():
    only_r_kept_out = PATTERN.replace(r"[^\r\n\p{L}", r"[^\r\p{L}")
    assert only_r_kept_out != PATTERN
    assert "letters of the next line" in verdict("word_pattern", lambda: only_r_kept_out).reason


def test_marks_are_spelled_out_where_they_would_look_like_a_letter():
    assert shown(["e\u0301", "é", "\n"]) == r"['e\u0301', 'é', '\n']"
