"""What the exercise 12_qwen_tokenizer asks on the way from a text to ids.

Expected words are by hand. The last step of each contract asks the package, on texts that trip
tokenizers.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial, update_wrapper
from numbers import Integral
from typing import Any

import regex

from qwen2lite.learn.contract import Mistake, call, describe, told_by, usual_reason
from qwen2lite.learn.mutants.qwen_tokenizer import MUTANTS, lists_in_the_list
from qwen2lite.learn.mutants.split_control import MUTANTS as SPLIT_CONTROL
from qwen2lite.text.pretokenize import normalise, split_words

Part = Callable[..., Any]
START, END = "<|im_start|>", "<|im_end|>"
TURN = f"{START}user\nHi{END}\n"
HARD_TEXTS = (
    "I'VE 3.14 of 1,000 'ſ’s",
    "x = {'a': [1, 2]}  # ok\r\n\r\n\treturn -x\n",
    "  \n   \n  end  ",
    "naïve café, 日本語です。 안녕하세요 ٣٤ ½²",
    # Either line end alone and both, and white space that is no space.
    "if (a) {\r\n\t\tb();\r\n\r\n\t# c\rd;\re\n-\u00a0\u00a0f;\n",
    "ภาษาไทย हिन्दी မြန်မာ 🦙🦙 a\u0308 \u00a0x",
)


def check_word_pattern(word_pattern: Part) -> Iterator[str]:
    """Cuts by hand, one a kind of word, then whole texts."""
    cases = (
        ("naïve 猫 über", ["naïve", " 猫", " über"], "letters of all scripts are letters"),
        ("ดีมากok", ["ด", "ีมากok"], "but marks are none, not even the vowels of Thai"),
        (
            ".append(x my_name\ty",
            [".append", "(x", " my", "_name", "\ty"],
            "one sign, tab or space may stand before letters",
        ),
        ("in 2024", ["in", " ", "2", "0", "2", "4"], "every digit is alone"),
        ("a -> b!?\n\nc", ["a", " ->", " b", "!?\n\n", "c"], "signs stay together, line ends too"),
        ("a    b", ["a", "   ", " b"], "of four spaces before a word, three stay behind"),
        (
            "don't\n  I'LL\nbe ",
            ["don", "'t", "\n", " ", " I", "'LL", "\n", "be", " "],
            "endings, lines, the rest",
        ),
    )
    for text, wanted, fact in cases:
        _require_words(word_pattern, text, wanted)
        yield fact
    for text in HARD_TEXTS:
        _require_words(word_pattern, text, split_words(text))
    yield "all words of six texts that trip tokenizers"


def _cut(word_pattern: Part, text: str) -> tuple[str, ...]:
    pattern = word_pattern()
    if not isinstance(pattern, str):
        raise Mistake(f"word_pattern returned {describe(pattern)}; a text was wanted, the pattern.")
    try:
        return tuple(match[0] for match in regex.finditer(pattern, text))
    except regex.error as error:
        raise Mistake(f"{pattern!r} is no regular expression: {error}.") from None


def _require_words(word_pattern: Part, text: str, wanted: Sequence[str]) -> None:
    got = call(partial(_cut, word_pattern), text, name="word_pattern")
    if got != tuple(wanted):
        raise Mistake(
            f"{shown(text)} is cut into {shown(got)}; wanted {shown(wanted)}.",
            usual_reason(asked("word_pattern", _cut), got, text),
        )


def check_split_control(split_control: Part) -> Iterator[str]:
    """A turn by hand, repeated tokens, and tokens that aren't allowed."""
    control = (START, END)
    _require_pieces(split_control, TURN, control, [START, "user\nHi", END, "\n"])
    yield "a turn in four pieces: control token, text, control token, text"
    _require_pieces(split_control, f"{END}{END}a|b{END}", control, [END, END, "a|b", END])
    yield "the same one three times, and nothing empty between"
    _require_pieces(split_control, TURN, (END,), [f"{START}user\nHi", END, "\n"])
    _require_pieces(split_control, TURN, (), [TURN])
    yield "what isn't allowed stays in the text"


def _require_pieces(part: Part, text: str, control: tuple[str, ...], wanted: list[str]) -> None:
    got = call(part, text, control, name="split_control")
    if not isinstance(got, list):
        raise Mistake(f"split_control returned {describe(got)}; a list of texts was wanted.")
    if got != wanted:
        raise Mistake(
            f"{shown(text)} with the control tokens {shown(control)} gives {shown(got)}; "
            f"wanted {shown(wanted)}.",
            usual_reason(SPLIT_CONTROL["split_control"], got, text, control),
        )


def check_encode_text(encode_text: Part) -> Iterator[str]:
    """Which words are encoded, and where control tokens stand, by hand; then whole texts."""
    both = (START, END)
    _require_encoded(encode_text, "don't stop\n", (), ["don", "'t", " stop", "\n"])
    yield "the words are encoded one by one"
    _require_all_ids(encode_text)
    yield "a word may have several ids"
    _require_encoded(encode_text, TURN, both, [START, "user", "\n", "Hi", END, "\n"])
    yield "control tokens get their own ids, and none is added"
    words = ["<|", "im", "_start", "|>", "user", "\n", "Hi", END, "\n"]
    _require_encoded(encode_text, TURN, (END,), words)
    yield "one that isn't allowed is plain text"
    _require_encoded(encode_text, "cafe\u0301 über", (), ["café", " über"])
    yield "a letter and its accent become one character"
    _require_encoded(encode_text, "x² ½", (), ["x", "²", " ", "½"])
    yield "similar signs stay what they are"
    _require_encoded(encode_text, f"{END}\u0338", both, [END, "\u0338"])
    yield "a control token is found before accents are joined"
    for text in HARD_TEXTS:
        _require_encoded(encode_text, text, both, split_words(normalise(text)))
    yield "all words of six texts that trip tokenizers"


def _encoded(part: Part, text: str, control: Collection[str]) -> tuple[str, ...]:
    """Encodes with words that are numbered as they come, and spells the ids out again."""
    spelled = {1000 + number: name for number, name in enumerate(control)}
    ids = {name: number for number, name in spelled.items()}

    def encode_word(word: str) -> list[int]:
        number = len(spelled)
        spelled[number] = word
        return [number]

    got = tuple(part(text, encode_word, ids))
    for number in got:
        if not isinstance(number, Integral):
            raise Mistake(
                f"Among the ids of {shown(text)} stands {number!r}; a flat list of ids was wanted.",
                told_by(lists_in_the_list) if isinstance(number, list) else "",
            )
    return tuple(spelled.get(int(number), f"id {number}") for number in got)


def _require_all_ids(part: Part) -> None:
    # `_encoded` gives every word one id, and so never tells the first from all.
    inputs = "ab", lambda word: [1, 2], dict[str, int]()
    got = call(part, *inputs, name="encode_text")
    if list(got) != [1, 2]:
        raise Mistake(
            f'The word "ab" has the ids [1, 2], and the text "ab" gets {list(got)}; wanted [1, 2].',
            usual_reason(MUTANTS["encode_text"], got, *inputs),
        )


def _require_encoded(
    part: Part, text: str, control: tuple[str, ...], wanted: Sequence[str]
) -> None:
    got = call(partial(_encoded, part), text, control, name="encode_text")
    if got != tuple(wanted):
        allowed = f"{shown(control)} allowed" if control else "no control token allowed"
        raise Mistake(
            f"{shown(text)}, {allowed}: the ids stand for {shown(got)}; wanted {shown(wanted)}.",
            usual_reason(asked("encode_text", _encoded), got, text, control),
        )


def asked(task: str, how: Callable[..., Any]) -> list[Part]:
    """The mutants of a task, each asked in the way in which its contract asks."""
    return [update_wrapper(partial(how, mutant), mutant) for mutant in MUTANTS[task]]


def shown(text: Any) -> str:
    """Texts as Python writes them, with marks spelled out: "e" and an accent look like one."""
    if isinstance(text, str):
        marks = unicodedata.combining
        return "".join(f"\\u{ord(c):04x}" if marks(c) else c for c in repr(text))
    return f"[{', '.join(map(shown, text))}]"
