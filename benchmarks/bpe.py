"""Training on 10 MB of source code to 32,000 tokens: our trainer beside that of tokenizers.

The text is what this Python carries, its standard library, so it differs a little between Python
versions. Timed is everything from text to merges: NFC, cutting, counting, merging. Both have to find
the same merges. On one thread the seconds are the processor's own, which a busy machine doesn't
stretch; with all threads they are the clock's, as a person waits for them. Ours has one thread always.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable

import measure
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from qwen2lite.text.bpe import printable_bytes, train_bpe
from qwen2lite.text.pretokenize import PATTERN, normalise, split_words
from qwen2lite.train.corpus import code, take

CHARACTERS, VOCAB_SIZE = 10_000_000, 32_000
Merges = list[tuple[bytes, bytes]]


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    measure.show([in_a_process(1, flags.repeats), in_a_process(0, flags.repeats)], flags.json)


def in_a_process(threads: int, repeats: int) -> measure.Row:
    """One row. The library reads the number of its threads once, when it starts; 0 means all."""
    os.environ |= {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": str(threads != 1)}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(compare, (threads, repeats))


def compare(threads: int, repeats: int) -> measure.Row:
    texts = [document.text for document in take(code(), CHARACTERS)]
    size = sum(len(text.encode()) for text in texts) / 1e6
    clock = time.process_time if threads == 1 else time.perf_counter
    found: dict[Callable[[list[str]], Merges], Merges] = {}

    def timed(train: Callable[[list[str]], Merges]) -> float:
        start = clock()
        found[train] = train(texts)
        return clock() - start

    mine, theirs = measure.medians(repeats, lambda: timed(ours), lambda: timed(library))
    assert found[ours] == found[library], "the trainers disagree"
    work = f"{size:.1f} MB to {len(found[ours]) + 256:,} tokens"
    peer = f"tokenizers, {threads or 'all'} thread{'s' * (threads != 1)}"
    return measure.Row(work, mine, theirs, peer, "s", theirs / mine)


def ours(texts: list[str]) -> Merges:
    words = (word.encode() for text in texts for word in split_words(normalise(text)))
    return train_bpe(words, VOCAB_SIZE)


def library(texts: list[str]) -> Merges:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return merges_of(tokenizer)


def merges_of(tokenizer: Tokenizer) -> Merges:
    byte_of = {character: byte for byte, character in printable_bytes().items()}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(bytes(byte_of[c] for c in token) for token in pair) for pair in merges]


if __name__ == "__main__":
    main()
