r"""Where documents come from: this Python, a folder, the Hub, and mixtures of them.

A reader is a generator: it holds one file at a time, always gives the same documents in the same
order, and is started again by calling it again.
"""

import ast
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Document:
    """A text and where it came from.

    Args:
        text: what a model reads.
        source: name of the corpus.
        name: of the document in its corpus, such as a path.
    """

    text: str
    source: str
    name: str = ""


def code() -> Iterator[Document]:
    """The source files of the running Python's standard library, about 12 MB without its tests.

    They differ between Python versions, and some distributions leave files out.
    """
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py"), key=Path.as_posix):
        place = path.relative_to(library)
        if {"site-packages", "dist-packages", "test", "tests", "idle_test"} & set(place.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a few files of the library are written in other encodings on purpose
        if text.strip():
            yield Document(text, "code", place.as_posix())


def docstrings() -> Iterator[Document]:
    """The docstrings of the same files: English about programs, about 1.8 MB."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for document in code():
        try:
            tree = ast.parse(document.text)
        except SyntaxError:
            continue  # files for the translator of Python 2
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text:
                part = getattr(node, "name", "")
                yield Document(text, "docstrings", f"{document.name}:{part}".rstrip(":"))


def text_files(
    folder: str | Path, pattern: str = "**/*.txt", skipped: list[str] | None = None
) -> Iterator[Document]:
    """The text files of a folder, each one document, in the order of their paths.

    Args:
        folder: searched with its subfolders.
        pattern: which files, as in `Path.glob`.
        skipped: a list to which files that are not UTF-8 are added with the reason; None refuses
            them.

    Raises:
        FileNotFoundError: no such folder, or no such file in it.
        ValueError: a file is not UTF-8; it says which, and at which byte.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one that holds the texts")
    paths = sorted(filter(Path.is_file, folder.glob(pattern)), key=Path.as_posix)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no file like {pattern}; give another pattern")
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            broken = f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
            if skipped is None:
                raise ValueError(f"{broken}; convert the file, or skip such files") from None
            skipped.append(broken)
            continue
        if text.strip():
            yield Document(text, folder.name, path.relative_to(folder).as_posix())


def hub(
    name: str, split: str = "train", config: str | None = None, column: str = "text"
) -> Iterator[Document]:
    """A data set of the Hugging Face Hub, streamed: nothing is stored.

    Args:
        name: such as roneneldan/TinyStories.
        split: part of the data set.
        config: its variant, where it has several.
        column: the one that holds the text.

    Raises:
        ModuleNotFoundError: the `datasets` library is not installed.
        ValueError: there is no such column.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"reading {name} from the Hub takes the library `datasets`: pip install datasets"
        ) from None
    for number, row in enumerate(datasets.load_dataset(name, config, split=split, streaming=True)):
        if column not in row:
            raise ValueError(f"{name} has no column {column!r}; it has {', '.join(sorted(row))}")
        if row[column]:
            yield Document(row[column], name, str(number))


def take(documents: Iterable[Document], characters: int) -> Iterator[Document]:
    """Whole documents until they hold that many characters together; the last may go beyond."""
    total = 0
    for document in documents:
        yield document
        total += len(document.text)
        if total >= characters:
            return


class Mixture:
    r"""Documents of several sources in given shares, without end: see `take`.

    Shares are of *characters*, not of documents: one source file weighs as much as a hundred
    docstrings. Always the source that is furthest behind its share gives the next document, so at
    every moment each is within a document of its share, and nothing is left to chance.
    A source that runs out is started again: that is up-sampling, and `epochs` says how often.

    Args:
        sources: for each name a function that starts it, and its weight; weights needn't sum to 1.
            A source may give documents or plain strings, which become documents of that name.

    Attributes:
        epochs: how often each source has been started, 1 where it was never repeated.
        characters: how many each has given.

    Raises:
        ValueError: no source, or a weight that is not above 0.
    """

    def __init__(self, sources: Mapping[str, tuple[Callable[[], Iterable[Document | str]], float]]):
        if not sources:
            raise ValueError("a mixture needs at least one source")
        for name, (_, weight) in sources.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name} is {weight}; it must be above 0")
        self.sources = dict(sources)
        self.epochs = dict.fromkeys(sources, 0)
        self.characters = dict.fromkeys(sources, 0)

    def __iter__(self) -> Iterator[Document]:
        """Starts the mixture from its beginning.

        Raises:
            ValueError: a source is empty.
        """
        running: dict[str, Iterator[Any]] = {name: iter(()) for name in self.sources}
        self.epochs = dict.fromkeys(self.sources, 0)
        self.characters = dict.fromkeys(self.sources, 0)
        while True:
            name = min(self.sources, key=self._progress)
            document = next(running[name], None)
            if document is None:
                running[name] = iter(self.sources[name][0]())
                self.epochs[name] += 1
                document = next(running[name], None)
                if document is None:
                    raise ValueError(f"the source {name} is empty")
            if isinstance(document, str):
                document = Document(document, name)
            self.characters[name] += len(document.text)
            yield document

    def _progress(self, name: str) -> float:
        return self.characters[name] / self.sources[name][1]
