"""Qwen2's tokenizer: text to ids and back, with control tokens only where they are allowed."""

import codecs
import json
from collections.abc import Collection, Iterable
from functools import cached_property
from operator import index
from pathlib import Path

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from qwen2lite.text.bpe import merge_word, printable_bytes
from qwen2lite.text.pretokenize import PATTERN, normalise, split_words
from qwen2lite.text.vocabulary import Vocabulary, read_vocabulary
from qwen2lite.weights.sources import resolve

_REMEMBERED_WORDS = 100_000
"""Words whose tokens are kept, about 30 MB at most. Then the memory starts anew."""


class Qwen2Tokenizer:
    """Encodes and decodes with a byte-level BPE vocabulary.

    Args:
        vocabulary: tokens, merges and control tokens.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.special_tokens = dict(vocabulary.special_tokens)
        """Control tokens and their ids."""
        self._bytes = dict(enumerate(vocabulary.tokens))
        self._bytes.update({i: name.encode() for name, i in self.special_tokens.items()})
        self._byte_ids = [0] * 256
        for token, piece in enumerate(vocabulary.tokens):
            if len(piece) == 1:
                self._byte_ids[piece[0]] = token
        self._words: dict[str, list[int]] = {}
        self._any_special = _either(self.special_tokens)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Qwen2Tokenizer":
        """Loads the tokenizer of a model, or a tokenizer file by itself.

        Args:
            source: a model's name, a folder, or a tokenizer.json, .tiktoken or .gguf file.

        Raises:
            FileNotFoundError: nothing there, with the command that fetches it.
            ValueError: a damaged file.
        """
        path = Path(source).expanduser()
        return cls(read_vocabulary(path if path.is_file() else resolve(source)))

    @property
    def vocab_size(self) -> int:
        """Regular tokens, without control tokens: 151,643 in every Qwen2."""
        return len(self.vocabulary.tokens)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids of the control tokens that end a text or a turn."""
        names = ("<|endoftext|>", "<|im_end|>")
        return frozenset(self.special_tokens[n] for n in names if n in self.special_tokens)

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Turns a text into ids. No token is added at either end.

        Args:
            text: any text.
            allowed_special: control tokens that their spelling in the text stands for: "all",
                "none", or a set of them. Text from strangers wants "none": otherwise it can end
                its own turn and begin another.

        Raises:
            ValueError: a lone surrogate in the text, or an unknown control token is allowed.
        """
        # A control token is found in the text as it was written, before NFC.
        normal_text, ids, start = text, [], 0
        if control := self._control_pattern(allowed_special):
            for match in control.finditer(text):
                ids += self._encode_regular(text[start : match.start()])
                ids.append(self.special_tokens[match[0]])
                start = match.end()
            normal_text = text[start:]
        return ids + self._encode_regular(normal_text)

    def _control_pattern(self, allowed: str | Collection[str]) -> "regex.Pattern[str] | None":
        if allowed in ("all", "none"):
            return self._any_special if allowed == "all" else None
        if isinstance(allowed, str) or not self.special_tokens.keys() >= set(allowed):
            known = ", ".join(self.special_tokens)
            raise ValueError(
                f'allowed_special must be "all", "none" or a set of control tokens ({known}); '
                f"got {allowed!r}"
            )
        return _either(allowed)

    def _encode_regular(self, text: str) -> list[int]:
        words, ids = self._words, []
        for word in split_words(normalise(text)):
            tokens = words.get(word)
            if tokens is None:
                tokens = self._encode_word(word)
            ids += tokens
        return ids

    def _encode_word(self, word: str) -> list[int]:
        byte_ids = self._byte_ids
        tokens = merge_word([byte_ids[byte] for byte in word.encode()], self.vocabulary.merges)
        if len(self._words) >= _REMEMBERED_WORDS:
            self._words.clear()
        if len(word) < 100:
            self._words[word] = tokens
        return tokens

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Turns ids back into text.

        Args:
            ids: token ids. Rows of the embedding that no token uses are an error.
            errors: what becomes of bytes that are no UTF-8: "replace" writes U+FFFD, "strict" raises.

        Raises:
            ValueError: an id that stands for no token.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token. Raises ValueError for an id that stands for none."""
        try:
            return self._bytes[index(token)]
        except KeyError:
            raise ValueError(
                f"id {token} stands for no token: ids run from 0 to {max(self._bytes)}; "
                "a model that gives it is broken or has another vocabulary"
            ) from None

    def stream(self) -> "StreamDecoder":
        """A decoder for ids that arrive one by one."""
        return StreamDecoder(self)

    @cached_property
    def library(self) -> Tokenizer:
        """The same vocabulary in the `tokenizers` library: our oracle, and fast on many cores."""
        shown = printable_bytes()
        spell = ["".join(shown[byte] for byte in piece) for piece in self.vocabulary.tokens]
        merges = [(spell[left], spell[right]) for left, right in self.vocabulary.merges]
        model = models.BPE({text: i for i, text in enumerate(spell)}, merges, fuse_unk=False)
        library = Tokenizer(model)
        library.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        library.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        library.decoder = decoders.ByteLevel()
        ordered = sorted(self.special_tokens, key=self.special_tokens.__getitem__)
        # As published, tags of tool calls are added but not special: they stay when those are skipped.
        library.add_tokens(
            [AddedToken(n, normalized=False, special="tool_call" not in n) for n in ordered]
        )
        return library

    def save(self, folder: Path, eos_token_id: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, for every program that reads them.

        Args:
            folder: exists already.
            eos_token_id: what ends a text of this model; None leaves it to the program that reads.
        """
        # Chats know of tokenizers, so that at the top of the file it would be a circle.
        from qwen2lite.text.chat import chat_template

        settings: dict[str, object] = {
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "unk_token": None,
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
            "chat_template": chat_template(self),
        }
        names = {i: name for name, i in self.special_tokens.items()}
        if eos_token_id in names:
            settings["eos_token"] = names[eos_token_id]
        self.library.save(str(folder / "tokenizer.json"))
        text = json.dumps(settings, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _either(names: Collection[str]) -> "regex.Pattern[str] | None":
    longest_first = sorted(names, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first))) if names else None


class StreamDecoder:
    """Gives text as ids arrive, and holds back the bytes of a character that isn't whole yet."""

    def __init__(self, tokenizer: Qwen2Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Takes one id; returns the characters that are now whole, perhaps none."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """Returns what was held back: U+FFFD for bytes that never became a character."""
        return self._decoder.decode(b"", final=True)
