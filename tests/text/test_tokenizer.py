"""Our encoder against the `tokenizers` library, published vectors, and damaged input."""

import base64
import json
import random
import unicodedata
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.text.bpe import merge_word, printable_bytes, train_bpe
from qwen2lite.text.pretokenize import normalise, split_words
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import QWEN2_SPECIAL_TOKENS, read_vocabulary, vocabulary_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# First character and number of characters of 30 scripts, and of what trips tokenizers.
BLOCKS = [
    (0x41, 58), (0xC0, 64), (0x100, 128), (0x370, 144), (0x400, 256), (0x530, 96), (0x590, 112),
    (0x600, 256), (0x700, 80), (0x780, 64), (0x900, 128), (0x980, 128), (0xA00, 128), (0xA80, 128),
    (0xB00, 128), (0xB80, 128), (0xC00, 128), (0xC80, 128), (0xD00, 128), (0xD80, 128), (0xE00, 128),
    (0xE80, 128), (0xF00, 256), (0x1000, 160), (0x10A0, 96), (0x1100, 256), (0x1200, 384),
    (0x13A0, 96), (0x1780, 128), (0x1800, 176), (0x3040, 192), (0x4E00, 20000), (0xAC00, 11000),
    (0x300, 112), (0x1F300, 800), (0x1F1E6, 26), (0x2000, 112), (0xFE00, 16), (0x2150, 64),
]  # fmt: skip
PIECES = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_", "'S", "'ll", "'ve", "\u017f", "'\u017f",
    "  ", "   ", "\n", "\r\n", "\n\n ", "\t", "\u00a0", "\u200d", "0", "123456", "٣", "²", "...", "!?",
    " the", "The", "don't", "日本", "e\u0301", "\u212b", "\u1100\u1161", "_", "<", "|>",
]  # fmt: skip


def generated_strings(count: int, seed: int = 0):
    """Only characters that Python's Unicode knows: the `regex` module knows newer ones (U+058B and
    U+0CDC became letters lately) that the library still takes for signs."""
    chance = random.Random(seed)
    for _ in range(count):
        first, size = chance.choice(BLOCKS)
        parts = []
        for _ in range(chance.randrange(1, 7)):
            if chance.random() < 0.5:
                parts.append(chance.choice(PIECES))
            else:
                drawn = [chr(first + chance.randrange(size)) for _ in range(chance.randrange(1, 5))]
                parts += [c for c in drawn if unicodedata.category(c) != "Cn"]
        yield "".join(parts)


@pytest.mark.real
def test_ids_equal_the_library_on_100_000_strings(real_tokenizer):
    library = real_tokenizer.library
    strings = list(generated_strings(100_000))
    theirs = library.encode_batch(strings, add_special_tokens=False)
    wrong = [
        (text, ours, their.ids)
        for text, their in zip(strings, theirs, strict=True)
        if (ours := real_tokenizer.encode(text)) != their.ids
    ]
    assert not wrong, (len(wrong), wrong[:3])


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [9707, 1879]),
        (" Hello world", [21927, 1879]),
        ('print("<|endoftext|>")', [1350, 445, 151643, 899]),
        (" 根", [51461, 117]),
        (" Pandas", [33506, 300]),
        ("12345", [16, 17, 18, 19, 20]),
        ("e\u0301", [963]),
        ("\u212b", [144044]),
        ("My favourite condiment is ", [5050, 18696, 9756, 3819, 374, 220]),
    ],
)
def test_published_vectors(real_tokenizer, text, ids):
    assert real_tokenizer.encode(text) == ids


@pytest.mark.real
def test_control_tokens_are_text_where_they_are_not_allowed(real_tokenizer):
    text = 'print("<|endoftext|>")'
    plain = [1350, 9639, 91, 8691, 723, 427, 91, 82598]
    assert real_tokenizer.encode(text, allowed_special="none") == plain
    assert real_tokenizer.encode(text, allowed_special={"<|im_end|>"}) == plain
    with pytest.raises(ValueError, match="allowed_special must be"):
        real_tokenizer.encode(text, allowed_special={"<|nothing|>"})


@pytest.mark.real
def test_a_word_of_100_000_characters_equals_the_library(real_tokenizer):
    word = "".join(random.Random(1).choices("abcdefghij", k=100_000))
    assert real_tokenizer.encode(word) == real_tokenizer.library.encode(word).ids


@pytest.mark.real
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_decoding_gives_the_text_back_all_at_once_and_token_by_token(real_tokenizer, text):
    ids = real_tokenizer.encode(text)
    stream = real_tokenizer.stream()
    streamed = "".join(map(stream.push, ids)) + stream.finish()
    assert streamed == real_tokenizer.decode(ids) == normalise(text)


@pytest.mark.real
def test_the_stream_holds_back_half_characters(real_tokenizer):
    first, second = real_tokenizer.encode(" 根")
    stream = real_tokenizer.stream()
    assert [stream.push(first), stream.push(second)] == [" ", "根"]
    stream.push(first)
    assert stream.finish() == "\ufffd"


@pytest.mark.real
def test_ids_without_a_token_are_named(real_tokenizer):
    with pytest.raises(ValueError, match="id 151935 stands for no token"):
        real_tokenizer.decode([9707, 151935])


def test_lone_surrogates_are_refused_with_their_place():
    with pytest.raises(ValueError, match=r"character 2 of the text is the lone surrogate U\+D83D"):
        normalise("ab\ud83d")


@given(text=TEXTS)
def test_words_joined_are_the_text(text):
    assert "".join(split_words(text)) == text


def test_words_by_hand():
    words = ["don", "'t", " stop", "  ", " at", " ", "1", "2", "!\n"]
    assert list(split_words("don't stop   at 12!\n")) == words


def test_merges_by_hand():
    # ids: a=0 b=1 c=2; ab=3 is learnt before bc=4, abab=5 last.
    merges = {(0, 1): 3, (1, 2): 4, (3, 3): 5}
    assert merge_word([0, 1, 2], merges) == [3, 2]
    assert merge_word([1, 2, 0, 1, 0, 1, 0, 1], merges) == [4, 5, 3]
    assert merge_word([0, 0, 2], merges) == [0, 0, 2]


def test_training_by_hand():
    # "ab" stands 5 times, more than any pair; then "abc" 3 times; then nothing twice is left unmerged.
    words = [b"abc"] * 3 + [b"ab"] * 2
    assert train_bpe(words, 300) == [(b"a", b"b"), (b"ab", b"c")]
    assert train_bpe(words, 257) == [(b"a", b"b")]
    with pytest.raises(ValueError, match="at least 256"):
        train_bpe(words, 255)


def test_training_equals_the_library(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    chance = random.Random(5)
    lines = ["".join(chance.choices("abcde fgé", k=80)) for _ in range(300)]
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(lines, trainer)
    library.save(str(tmp_path / "tokenizer.json"))
    theirs = Qwen2Tokenizer.from_pretrained(tmp_path / "tokenizer.json").vocabulary
    words = [word.encode() for line in lines for word in _byte_level_words(line)]
    ours = train_bpe(words, 600)
    wanted = [(theirs.tokens[left], theirs.tokens[right]) for left, right in theirs.merges]
    assert ours == wanted


def _byte_level_words(line: str) -> list[str]:
    """The library's own cuts, so that only the merging is compared."""
    from tokenizers import pre_tokenizers

    cuts = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(line)
    return [line[start:end] for _, (start, end) in cuts]


def test_tensors_of_ids_are_ids():
    tokenizer = Qwen2Tokenizer(vocabulary_of([(b"h", b"i")]))
    ids = torch.tensor(tokenizer.encode("hi you"))
    stream = tokenizer.stream()
    assert tokenizer.decode(ids) == "".join(map(stream.push, ids)) == "hi you"


def test_tags_of_tool_calls_are_not_skipped_and_control_tokens_are():
    special = {"<|im_end|>": 256, "<tool_call>": 257}
    tokenizer = Qwen2Tokenizer(replace(vocabulary_of([]), special_tokens=special))
    ids = tokenizer.library.encode("<tool_call>a<|im_end|>").ids
    assert ids == tokenizer.encode("<tool_call>a<|im_end|>") == [257, *tokenizer.encode("a"), 256]
    assert tokenizer.library.decode(ids) == "<tool_call>a"


def test_the_longer_of_two_control_tokens_is_found_also_in_a_set():
    special = {"<a": 257, "<ab>": 256}
    tokenizer = Qwen2Tokenizer(replace(vocabulary_of([]), special_tokens=special))
    for allowed in ("all", {"<a", "<ab>"}):
        assert tokenizer.encode("<ab><a", allowed) == [256, 257]
    assert tokenizer.decode([256, 257]) == "<ab><a"
    assert tokenizer.library.token_to_id("<a") == 257


def test_the_library_cuts_a_sign_off_a_word_no_more_than_we_do():
    tokenizer = Qwen2Tokenizer(vocabulary_of(train_bpe([b"(foo"], 999)))
    assert len(ids := tokenizer.encode("(foo")) == 1
    assert tokenizer.library.encode("(foo").ids == ids


# Its first merge begins with the sign of a comment.
VOCABULARY = vocabulary_of(train_bpe([b"##"] * 5 + [b" lower"] * 3 + [b" low"] * 2, 999))


def printable_vocabulary():
    """The tokens of VOCABULARY as files spell them, the last first, and its merges in order."""
    shown = printable_bytes()
    spelled = ["".join(shown[byte] for byte in token) for token in VOCABULARY.tokens]
    merges = [f"{spelled[left]} {spelled[right]}" for left, right in VOCABULARY.merges]
    return {text: i for i, text in reversed([*enumerate(spelled)])}, merges


def write_json(folder):
    Qwen2Tokenizer(VOCABULARY).library.save(str(folder / "tokenizer.json"))


def write_two_files(folder, comment="#version: 0.2\n"):
    vocab, merges = printable_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text(comment + "\n".join(merges) + "\n", encoding="utf-8")


def write_two_files_and_control_tokens(folder):
    write_two_files(folder)
    added = {str(i): {"content": name} for name, i in VOCABULARY.special_tokens.items()}
    settings = json.dumps({"added_tokens_decoder": added})
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")


def write_tiktoken(folder):
    lines = [f"{base64.b64encode(t).decode()} {i}" for i, t in enumerate(VOCABULARY.tokens)]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n\n", encoding="utf-8")


@pytest.mark.parametrize("write", [write_json, write_two_files_and_control_tokens, write_tiktoken])
def test_every_form_of_file_holds_the_same_vocabulary(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json, vocab\.json or"):
        read_vocabulary(tmp_path)
    write(tmp_path)
    assert len(VOCABULARY.merges) > 4
    assert read_vocabulary(tmp_path) == VOCABULARY


def test_the_case_of_an_ending_says_nothing(tmp_path):
    write_tiktoken(tmp_path)
    loud = (tmp_path / "qwen.tiktoken").rename(tmp_path / "QWEN.TIKTOKEN")
    assert read_vocabulary(loud) == VOCABULARY


def test_half_of_two_files_is_named(tmp_path):
    write_two_files(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocab\.json has no merges\.txt beside it"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize("comment", ["", "#version: 0.2\n"])
def test_two_files_without_a_third_have_qwen2s_control_tokens(comment, tmp_path):
    write_two_files(tmp_path, comment)
    wanted = replace(VOCABULARY, special_tokens=QWEN2_SPECIAL_TOKENS)
    assert read_vocabulary(tmp_path / "vocab.json") == wanted


HALF_A_JSON = {"added_tokens": [], "model": {"vocab": {"a": 0, "b": 1}, "merges": ["a b c"]}}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tiktoken", "", "some of the 256 bytes have no token"),
        ("a.tiktoken", "<html> nothing here </html>", "Error"),
        ("a.tiktoken", "IQ== 0\nIg== 1\n", "some of the 256 bytes"),
        ("tokenizer.json", json.dumps(HALF_A_JSON), "too many values"),
        ("tokenizer.json", '{"model": {"vocab": ["a"], "merges": []}}', "AttributeError"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": []}}', "some of the 256 bytes"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 7}, "merges": []}}', "ids 0, 1, 2"),
        ("tokenizer.json", "[]", "TypeError"),
    ],
)
def test_a_damaged_file_is_named(name, content, says, tmp_path):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} is no byte-level BPE tokenizer.*{says}"):
        Qwen2Tokenizer.from_pretrained(path)
