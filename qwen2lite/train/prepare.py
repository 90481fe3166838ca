"""From the names of sources to token files: what a run reads, made once and kept in its folder."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qwen2lite.text.bpe import train_bpe
from qwen2lite.text.pretokenize import normalise, split_words
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.text.vocabulary import QWEN2_SPECIAL_TOKENS, vocabulary_of
from qwen2lite.train.checkpoint import refuse_changes
from qwen2lite.train.corpus import Document, Mixture, code, docstrings, hub, take, text_files
from qwen2lite.train.dedup import without_copies
from qwen2lite.train.tokens import TokenFile, to_disk, write_corpus
from qwen2lite.train.world import documents

_BPE_CHARACTERS = 10_000_000
"""As much of the corpus as a vocabulary is trained on: more changes little and takes longer."""
_PLAIN_READERS: dict[str, Callable[[], Iterable[Document]]] = {
    "code": code,
    "docstrings": docstrings,
}


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What a run reads.

    Raises:
        ValueError: a value out of range.
    """

    sources: tuple[str, ...] = ("world",)
    """"world", "docstrings" or "code" (both of the running Python), "hub:NAME" for a data set of the
    Hub, or the path of a folder with .txt files. All but the world without exact copies."""
    shares: tuple[float, ...] = (1.0,)
    """Of the characters that each source gives; a source that runs out is read again."""
    characters: int = 20_000_000
    """Of the corpus, held-out documents included."""
    held_out: float = 0.01
    """Share of documents that are only evaluated on. Which ones, their own text decides: a document
    that comes twice is never on both sides."""
    tokenizer: str = ""
    """A model whose tokenizer is used, by name or folder; without one, BPE is trained on the corpus."""
    seed: int = 0
    """Of the small world's wording."""

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name for name in self.sources):
            raise ValueError(
                f"sources must be names or folders, strings that aren't empty; got {self.sources}"
            )
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(
                f"a source stands twice in {self.sources}; name it once, with its shares added up"
            )
        if not all(type(share) in (int, float) and 0 < share < math.inf for share in self.shares):
            raise ValueError(f"shares must be numbers above 0, got {self.shares}")
        if len(self.shares) != len(self.sources):
            raise ValueError(
                f"sources has {len(self.sources)} names and shares {len(self.shares)} numbers; "
                "give each source its share"
            )
        if self.characters < 1 or not 0 < self.held_out < 1:
            raise ValueError(
                "characters must be at least 1 and held_out between 0 and 1; "
                f"got {self.characters} and {self.held_out}"
            )


@dataclass(frozen=True)
class Prepared:
    """A corpus in tokens, and the tokenizer that made them."""

    tokenizer: Qwen2Tokenizer
    train: TokenFile
    held_out: TokenFile


def prepare(settings: DataSettings, folder: Path, vocab_size: int) -> Prepared:
    """Makes tokenizer.json, train.bin and held_out.bin in a folder, or opens those made before.

    Args:
        settings: what to read.
        folder: of the data; made if need be.
        vocab_size: tokens of a tokenizer that is trained here, control tokens included. It becomes
            smaller where the corpus has no pair left to merge.

    Raises:
        ValueError: the folder holds another corpus or is damaged, or a side of this one is empty.
        FileNotFoundError: no such source.
        ModuleNotFoundError: one of the Hub, without the library `datasets`.
    """
    wanted = dataclasses.asdict(settings) | {"vocab_size": vocab_size}
    facts = folder / "data.json"
    if facts.is_file():
        refuse_changes(_read_facts(facts), wanted, f"corpus than {folder} holds")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = _tokenizer(settings, vocab_size)
        tokenizer.library.save(str(folder / "tokenizer.json"))
        for name in ("train", "held_out"):
            write_corpus(folder / f"{name}.bin", _side(settings, name), tokenizer)
        _write_facts(facts, wanted)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer.json")
    fingerprint = tokenizer.vocabulary.fingerprint
    train, held_out = (
        TokenFile.open(folder / f"{n}.bin", fingerprint) for n in ("train", "held_out")
    )
    return Prepared(tokenizer, train, held_out)


def corpus(settings: DataSettings) -> Iterator[Document]:
    """All documents of a run, always the same ones in the same order."""
    mixture = Mixture(
        {
            name: (_reader(name, settings.seed), share)
            for name, share in zip(settings.sources, settings.shares, strict=True)
        }
    )
    return take(mixture, settings.characters)


def is_held_out(text: str, share: float) -> bool:
    """Whether a document is for evaluation: its fingerprint, read as a number, says so."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """BPE on some texts, with Qwen2's control tokens on top.

    Args:
        texts: the first 10 million characters count.
        vocab_size: with the control tokens.

    Raises:
        ValueError: no room for the bytes.
    """
    least = 256 + len(QWEN2_SPECIAL_TOKENS)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size must be {least} or more, for the bytes and the control tokens; "
            f"got {vocab_size}"
        )
    documents = take((Document(text, "") for text in texts), _BPE_CHARACTERS)
    words = chain.from_iterable(split_words(normalise(document.text)) for document in documents)
    merges = train_bpe((word.encode() for word in words), vocab_size - len(QWEN2_SPECIAL_TOKENS))
    return Qwen2Tokenizer(vocabulary_of(merges))


def _read_facts(facts: Path) -> dict[str, Any]:
    try:
        made = json.loads(facts.read_text(encoding="utf-8"))
    except ValueError:
        made = None
    if not isinstance(made, dict):
        raise ValueError(f"{facts} is damaged; delete {facts.parent}, and the corpus is made again")
    return made


def _write_facts(facts: Path, made: dict[str, Any]) -> None:
    """Written last, and whole or not at all: without it a corpus is made anew."""
    part = facts.with_name(facts.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(made, indent=2) + "\n")
        to_disk(file)
    part.replace(facts)


def _tokenizer(settings: DataSettings, vocab_size: int) -> Qwen2Tokenizer:
    if settings.tokenizer:
        return Qwen2Tokenizer.from_pretrained(settings.tokenizer)
    return train_tokenizer(_side(settings, "train"), vocab_size)


def _side(settings: DataSettings, name: str) -> Iterator[str]:
    empty = True
    with tqdm(
        total=settings.characters, unit="char", unit_scale=True, desc="corpus", delay=2
    ) as bar:
        for document in corpus(settings):
            bar.update(len(document.text))
            if is_held_out(document.text, settings.held_out) == (name == "held_out"):
                empty = False
                yield document.text
    if empty:
        raise ValueError(
            f"none of the corpus's documents fell to {name}: whole documents are held out, a share "
            f"of {settings.held_out}; give more documents (split a long file), or another held_out"
        )


def _reader(name: str, seed: int) -> Callable[[], Iterable[Document | str]]:
    if name == "world":
        return partial(documents, seed)
    read = _PLAIN_READERS.get(name)
    if name.startswith("hub:"):
        read = partial(hub, name.removeprefix("hub:"))
    read = read or partial(text_files, name)
    return lambda: without_copies(read())
