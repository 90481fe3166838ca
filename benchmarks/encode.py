"""Encoding 2 MB of English on one thread: our encoder beside tokenizers and tiktoken.

The text is what this Python carries: docstrings and help topics of its standard library, so it differs
a little between Python versions. Every run starts cold: a new tokenizer with empty caches; building the
object from the vocabulary is not timed, on either side.
"""

import ast
import os
import pydoc_data.topics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import measure
import tiktoken

from qwen2lite.text.pretokenize import PATTERN
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import Vocabulary
from qwen2lite.weights.sources import default_model

CHARACTERS, PART = 2_000_000, 10_000


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    if not (source := default_model()):
        raise SystemExit("no model is fetched yet; run: python -m qwen2lite fetch")
    vocabulary = Qwen2Tokenizer.from_pretrained(source).vocabulary
    text = english()
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    rows = [
        row
        for works, pieces in (
            (("encode from scratch", "encode from scratch, beside tiktoken"), [text]),
            (("encode in 10,000-character parts", "the same, beside tiktoken"), parts),
        )
        for row in compare(works, pieces, vocabulary, flags.repeats)
    ]
    measure.show(rows, flags.json)


def english() -> str:
    """Help topics and docstrings, in the order of their files' names."""
    texts = list(pydoc_data.topics.topics.values())
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or sum(map(len, texts)) > 2 * CHARACTERS:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        texts += filter(
            None, (ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds))
        )
    return "\n\n".join(texts)[:CHARACTERS]


def compare(works: tuple[str, str], pieces: list[str], vocabulary: Vocabulary, repeats: int):
    makers = {"ours": ours, "tokenizers": library, "tiktoken": tiktoken_encoder}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    counts = set()
    for _ in range(repeats):
        for name, make in makers.items():
            encode = make(vocabulary)
            start = time.perf_counter()
            counts.add(sum(len(encode(piece)) for piece in pieces))
            seconds[name].append(time.perf_counter() - start)
    assert len(counts) == 1, f"the encoders disagree: {counts}"
    megabytes = sum(len(piece.encode()) for piece in pieces) / 1e6
    speed = {name: megabytes / sorted(times)[repeats // 2] for name, times in seconds.items()}
    for work, peer in zip(works, ("tokenizers", "tiktoken"), strict=True):
        ratio = speed["ours"] / speed[peer]
        yield measure.Row(work, speed["ours"], speed[peer], peer, "MB/s", ratio)


def ours(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    return Qwen2Tokenizer(vocabulary).encode


def library(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    tokenizer = Qwen2Tokenizer(vocabulary).library
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def tiktoken_encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    ranks = {piece: token for token, piece in enumerate(vocabulary.tokens)}
    special = vocabulary.special_tokens
    encoder = tiktoken.Encoding(
        "qwen2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return lambda text: encoder.encode(text, allowed_special="all")


if __name__ == "__main__":
    main()
