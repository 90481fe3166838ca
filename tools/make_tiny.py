"""Writes data/qwen2-tiny: a RANDOM model of 0.2 million parameters with a vocabulary of its own.

It stands in where the real 0.5B isn't fetched, until a small trained model takes its place.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.text.bpe import printable_bytes, train_bpe
from qwen2lite.text.pretokenize import split_words
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import QWEN2_SPECIAL_TOKENS, Vocabulary
from qwen2lite.weights.export import export

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "data" / "qwen2-tiny"


def main() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    merges = train_bpe((word.encode() for word in split_words(text)), vocab_size=509)
    tokenizer = Qwen2Tokenizer(vocabulary_of(merges))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.special_tokens["<|endoftext|>"],
    )
    with tempfile.TemporaryDirectory() as folder:
        made = export(Qwen2(config), Path(folder) / "tiny")
        tokenizer.library.save(str(made / "tokenizer.json"))
        for file in made.iterdir():
            shutil.copyfile(file, PLACE / file.name)
    size = sum(file.stat().st_size for file in PLACE.iterdir())
    print(json.dumps({"tokens": tokenizer.vocab_size, "bytes": size}))


def vocabulary_of(merges: list[tuple[bytes, bytes]]) -> Vocabulary:
    """The 256 bytes, a token a merge, and Qwen2's control tokens after them."""
    tokens = [bytes([byte]) for byte in printable_bytes()]
    pairs = {}
    for left, right in merges:
        pairs[tokens.index(left), tokens.index(right)] = len(tokens)
        tokens.append(left + right)
    special = {name: len(tokens) + i for i, name in enumerate(QWEN2_SPECIAL_TOKENS)}
    return Vocabulary(tokens, pairs, special)


if __name__ == "__main__":
    main()
