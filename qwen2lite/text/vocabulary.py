"""Reading a vocabulary from the files in which one is published."""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2lite.text.bpe import Pair, merge_word, printable_bytes
from qwen2lite.weights.gguf import read_metadata

QWEN2_SPECIAL_TOKENS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
"""Qwen2's control tokens. Qwen2.5 has 19 more, which its files list."""

_GGUF_CONTROL, _GGUF_USER_DEFINED = 3, 4


@dataclass(frozen=True)
class Vocabulary:
    """Regular tokens as bytes, in the order of their ids; merges by (left, right); control tokens."""

    tokens: list[bytes]
    merges: dict[Pair, int]
    special_tokens: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens in the order of their ids: equal where ids mean the same."""
        digest = hashlib.sha256()
        control = sorted((i, name.encode()) for name, i in self.special_tokens.items())
        for i, token in [*enumerate(self.tokens), *control]:
            # Without its length, one token could spell out the id and bytes of another.
            digest.update(i.to_bytes(4, "little") + len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()


def vocabulary_of(merges: Iterable[tuple[bytes, bytes]]) -> Vocabulary:
    """The 256 bytes, a token a merge, and Qwen2's control tokens after them.

    Args:
        merges: in order, from `train_bpe`.
    """
    tokens = [bytes([byte]) for byte in printable_bytes()]
    order = {token: place for place, token in enumerate(tokens)}
    pairs: dict[Pair, int] = {}
    for left, right in merges:
        pairs[order[left], order[right]] = order[left + right] = len(tokens)
        tokens.append(left + right)
    return Vocabulary(tokens, pairs, _control_tokens_after(tokens))


def _control_tokens_after(tokens: list[bytes]) -> dict[str, int]:
    return {name: len(tokens) + i for i, name in enumerate(QWEN2_SPECIAL_TOKENS)}


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads tokenizer.json, vocab.json with merges.txt, a .tiktoken file, or a GGUF's metadata.

    Args:
        path: one of these files, or the folder that holds one.

    Raises:
        FileNotFoundError: a folder without a tokenizer, or with half of one.
        ValueError: a file that is damaged or holds another kind of tokenizer.
    """
    for name in ("tokenizer.json", "vocab.json", "qwen.tiktoken"):
        if path.is_dir() and (path / name).is_file():
            path = path / name
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} holds no tokenizer.json, vocab.json or qwen.tiktoken; fetch the model again"
        )
    readers = {".gguf": _from_gguf, ".tiktoken": _from_tiktoken}
    reader = readers.get(path.suffix.lower(), _from_json)
    try:
        vocabulary = reader(path)
        if len({token for token in vocabulary.tokens if len(token) == 1}) < 256:
            raise ValueError("some of the 256 bytes have no token")
        return vocabulary
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if str(path) in str(error):  # it says all that is to be said
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is no byte-level BPE tokenizer ({reason}); fetch it again"
        ) from None


def _from_json(path: Path) -> Vocabulary:
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "vocab.json":
        beside = path.with_name("merges.txt")
        if not beside.is_file():
            raise FileNotFoundError(f"{path} has no merges.txt beside it; fetch the model again")
        lines = beside.read_text(encoding="utf-8").splitlines()
        # Some merges begin with "#": only the first line can be a comment.
        merges = lines[1:] if lines and lines[0].startswith("#version:") else lines
        return _assemble(content, merges, _added_tokens(path.with_name("tokenizer_config.json")))
    model = content["model"]
    special = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    return _assemble(model["vocab"], model["merges"], special)


def _added_tokens(path: Path) -> dict[str, int]:
    if not path.is_file():
        return QWEN2_SPECIAL_TOKENS
    listed = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
    return {token["content"]: int(number) for number, token in listed.items()}


def _from_gguf(path: Path) -> Vocabulary:
    metadata: dict[str, Any] = read_metadata(path)
    texts, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    added = (_GGUF_CONTROL, _GGUF_USER_DEFINED)
    special = {t: i for i, (t, kind) in enumerate(zip(texts, kinds, strict=True)) if kind in added}
    regular = {t: i for i, (t, kind) in enumerate(zip(texts, kinds, strict=True)) if kind == 1}
    return _assemble(regular, metadata["tokenizer.ggml.merges"], special)


def _assemble(vocab: dict[str, int], merges: list[Any], special: dict[str, int]) -> Vocabulary:
    """From the printable spelling of vocabulary files to bytes."""
    printable = {ord(character): chr(byte) for byte, character in printable_bytes().items()}
    # Character by character 150,000 tokens take 0.2 s. What spells no byte becomes one that can't be
    # encoded.
    to_bytes = dict.fromkeys(range(256), "\ufffd") | printable
    regular = sorted((i, text) for text, i in vocab.items() if text not in special)
    if [i for i, _ in regular] != list(range(len(regular))):
        raise ValueError(f"the {len(regular)} regular tokens don't have the ids 0, 1, 2, …")
    pairs: dict[Pair, int] = {}
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        pairs[vocab[left], vocab[right]] = vocab[left + right]
    tokens = [text.translate(to_bytes).encode("latin-1") for _, text in regular]
    return Vocabulary(tokens, pairs, special)


def _from_tiktoken(path: Path) -> Vocabulary:
    """Ranks only, so each token's merge is found again: the last one its own bytes go through."""
    lines = path.read_text(encoding="utf-8").splitlines()
    tokens = [base64.b64decode(line.split()[0]) for line in lines if line]
    order = {token: place for place, token in enumerate(tokens)}
    merges: dict[Pair, int] = {}
    for token in tokens[256:]:
        left, right = merge_word([order[bytes([byte])] for byte in token], merges)
        merges[left, right] = order[token]
    return Vocabulary(tokens, merges, _control_tokens_after(tokens))
