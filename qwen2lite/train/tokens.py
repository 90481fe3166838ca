r"""Token files: a corpus as one long row of ids on disk, read without loading it.

`corpus.bin` is documents end to end, `<|endoftext|>` after each, as little-endian integers of two
bytes where the vocabulary allows it, else four. `corpus.bin.json` says what the integers mean.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from tqdm import tqdm

from qwen2lite.text.tokenizer import Qwen2Tokenizer

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class TokenFacts:
    """The content of the JSON beside a token file.

    Args:
        dtype: "uint16" or "uint32", little-endian.
        count: ids in the file.
        documents: how many; each ends with `eos`.
        vocab_size: every id is below it.
        eos: the id of `<|endoftext|>`, which stands nowhere but after a document.
        fingerprint: of the vocabulary, see `Vocabulary.fingerprint`.
    """

    dtype: str
    count: int
    documents: int
    vocab_size: int
    eos: int
    fingerprint: str


@dataclass(frozen=True)
class TokenFile:
    """An open token file: `ids` behaves as an array, and the disk is read where it is touched."""

    ids: np.ndarray
    facts: TokenFacts

    @classmethod
    def open(cls, path: str | Path, fingerprint: str | None = None) -> "TokenFile":
        """Maps a token file into memory.

        Args:
            path: the `.bin`; its `.bin.json` lies beside it.
            fingerprint: of the vocabulary you are going to use; None doesn't ask.

        Raises:
            FileNotFoundError: one of the two files is missing.
            ValueError: a file cut short, a damaged sidecar, or another vocabulary.
        """
        path = Path(path)
        facts = _read_facts(path)
        dtype = np.dtype(facts.dtype).newbyteorder("<")
        size, wanted = path.stat().st_size, facts.count * dtype.itemsize
        if size != wanted:
            raise ValueError(
                f"{path} has {size:,} bytes where {facts.count:,} tokens take {wanted:,}; "
                "it was cut short or changed: write it again"
            )
        if fingerprint is not None and fingerprint != facts.fingerprint:
            raise ValueError(
                f"{path} was written with another vocabulary ({facts.vocab_size:,} tokens, "
                f"fingerprint {facts.fingerprint[:8]}…, yours is {fingerprint[:8]}…): its ids would "
                "mean other words; encode the corpus again with your tokenizer"
            )
        return cls(np.memmap(path, dtype=dtype, mode="r"), facts)


def _read_facts(path: Path) -> TokenFacts:
    sidecar = _sidecar(path)
    for file in (path, sidecar):
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no {file}; a token file is NAME.bin with NAME.bin.json beside it, "
                "written by write_tokens"
            )
    try:
        facts = TokenFacts(**json.loads(sidecar.read_text(encoding="utf-8")))
        sound = facts.dtype in ("uint16", "uint32") and facts.count > 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"{sidecar} doesn't describe a token file; write the tokens again")
    return facts


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def encode_texts(tokenizer: Qwen2Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Encodes documents one by one. Control tokens spelled out in a text stay plain text."""
    return (tokenizer.encode(text, allowed_special="none") for text in texts)


def write_tokens(
    path: str | Path,
    documents: Iterable[list[int]],
    *,
    vocab_size: int,
    eos: int,
    fingerprint: str,
) -> TokenFacts:
    """Writes documents to a token file, with a progress bar where it takes long.

    The file appears only when it is complete: until then its name ends in `.part`, and whatever
    was at `path` stays valid.

    Args:
        path: where to, ending in `.bin` by custom.
        documents: the ids of each, without `eos`. Empty ones are passed over.
        vocab_size: all ids are below it; it decides between two and four bytes an id.
        eos: the id put after each document.
        fingerprint: of the vocabulary the ids belong to.

    Returns:
        What the sidecar says.

    Raises:
        ValueError: no document at all, an id outside the vocabulary, or `eos` inside a document.
        OSError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype("uint16" if vocab_size <= 2**16 else "uint32")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            written, count = _pack(file, documents, vocab_size, eos, dtype)
            to_disk(file)
        facts = TokenFacts(dtype.name, count, written, vocab_size, eos, fingerprint)
        _publish(path, part, facts)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(f"the disk of {path.parent} is full; make room and write again") from None
        raise
    return facts


def write_corpus(path: str | Path, texts: Iterable[str], tokenizer: Qwen2Tokenizer) -> TokenFile:
    """Encodes texts, writes them with the tokenizer's own facts, and opens the file.

    Raises:
        ValueError: no text, or a tokenizer without `<|endoftext|>`.
        OSError: the disk is full.
    """
    eos = tokenizer.special_tokens.get(END_OF_TEXT)
    if eos is None:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT} to put between documents, only "
            f"{', '.join(tokenizer.special_tokens) or 'regular tokens'}; add it to the vocabulary"
        )
    fingerprint = tokenizer.vocabulary.fingerprint
    vocab_size = max(tokenizer.vocab_size, *(i + 1 for i in tokenizer.special_tokens.values()))
    documents = encode_texts(tokenizer, texts)
    write_tokens(path, documents, vocab_size=vocab_size, eos=eos, fingerprint=fingerprint)
    return TokenFile.open(path, fingerprint)


def _pack(
    file: BinaryIO, documents: Iterable[list[int]], vocab_size: int, eos: int, dtype: np.dtype
) -> tuple[int, int]:
    """Writes the documents end to end; gives how many there were and their ids in all."""
    written = count = 0
    name = Path(file.name).stem
    for document in tqdm(documents, desc=name, unit=" documents", delay=2):
        if not document:
            continue
        ids = np.array([*document, eos])
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(
                f"document {written} of {name} holds ids from {ids.min()} to {ids.max()}, but the "
                f"vocabulary has 0 to {vocab_size - 1}; encode it with the vocabulary you named"
            )
        if eos in document:
            raise ValueError(
                f"document {written} of {name} holds {eos}, the id that ends a document; encode "
                f'with allowed_special="none", or split it there'
            )
        file.write(ids.astype(dtype.newbyteorder("<")).tobytes())
        written, count = written + 1, count + len(ids)
    if not written:
        raise ValueError(f"there is nothing to write to {name}: no document holds a token")
    return written, count


def to_disk(file: BinaryIO | TextIO) -> None:
    """Waits until what was written to a file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _publish(path: Path, part: Path, facts: TokenFacts) -> None:
    """Gives both files their names. The sidecar goes first and comes last: ids without one don't
    count, so the ids of one corpus never meet the facts of another."""
    sidecar = _sidecar(path)
    sidecar_part = sidecar.with_name(sidecar.name + ".part")
    with sidecar_part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(asdict(facts), indent=2) + "\n")
        to_disk(file)
    sidecar.unlink(missing_ok=True)
    part.replace(path)
    sidecar_part.replace(sidecar)
