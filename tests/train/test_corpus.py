"""Readers give the same documents in the same order; mixtures keep their shares."""

import sys
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite.train.corpus import Document, Mixture, code, docstrings, hub, take, text_files


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of a few files."""
    files = {
        "b.py": b'"""Module b."""\nclass C:\n    """Class C."""\n    def f(self):\n'
        b'        """f of C.\n\n        Indented."""\n',
        "a/one.py": b"x = 1\n",
        "a/latin.py": b"# \xe9\n",
        "a/empty.py": b"",
        "a/old.py": b'print "Python 2"\n',
        "a/tests/one.py": b"x = 1\n",
        "site-packages/p.py": b"x = 1\n",
        "a/note.txt": b"no code",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))


@pytest.mark.usefixtures("library")
def test_code_by_hand():
    assert [file.name for file in code()] == ["a/old.py", "a/one.py", "b.py"]
    assert {file.source for file in code()} == {"code"}
    assert list(code())[1].text == "x = 1\n"


@pytest.mark.usefixtures("library")
def test_docstrings_by_hand():
    assert list(docstrings()) == [
        Document("Module b.", "docstrings", "b.py"),
        Document("Class C.", "docstrings", "b.py:C"),
        Document("f of C.\n\nIndented.", "docstrings", "b.py:f"),
    ]


def test_this_python_has_both():
    files = list(islice(code(), 60))
    assert files == list(islice(code(), 60))
    assert sum(len(file.text) for file in files) > 300_000
    assert len(list(islice(docstrings(), 500))) == 500


def test_text_files_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "second.txt").write_bytes("\ufeffzwei\r\nZeilen".encode())
    (tmp_path / "a.txt").write_bytes("é".encode())
    (tmp_path / "empty.txt").write_bytes(b" \n")
    (tmp_path / "other.md").write_bytes(b"no")
    source = tmp_path.name
    assert list(text_files(tmp_path)) == [
        Document("é", source, "a.txt"),
        Document("zwei\nZeilen", source, "b/second.txt"),
    ]


def test_broken_utf8_is_named_or_skipped(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    (tmp_path / "b.txt").write_bytes(b"fine")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: byte 3 is 0xff"):
        list(text_files(tmp_path))
    skipped: list[str] = []
    assert [document.text for document in text_files(tmp_path, skipped=skipped)] == ["fine"]
    assert len(skipped) == 1
    assert "a.txt is not UTF-8: byte 3 is 0xff" in skipped[0]


def test_no_folder_and_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        list(text_files(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"holds no file like \*\*/\*\.txt"):
        list(text_files(tmp_path))


def test_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        next(hub("owner/name"))


def test_hub_reads_a_stream(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return iter([{"text": "one"}, {"text": ""}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    documents = list(hub("owner/name", split="validation"))
    assert documents == [Document("one", "owner/name", "0"), Document("two", "owner/name", "2")]
    assert calls == [(("owner/name", None), {"split": "validation", "streaming": True})]
    with pytest.raises(ValueError, match="no column 'story'; it has text"):
        next(hub("owner/name", column="story"))


def test_a_mixture_by_hand():
    mixture = Mixture({"long": (lambda: ["aaaa", "bbbb"], 1), "short": (lambda: ["x", "y"], 2)})
    texts = [document.text for document in islice(mixture, 12)]
    # Four characters of `long` ask for eight of `short`, which starts again every two.
    assert texts == ["aaaa", *"xyxyxyxy", "bbbb", "x", "y"]
    assert mixture.epochs == {"long": 1, "short": 5}
    assert mixture.characters == {"long": 8, "short": 10}


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0.1, 5))),
    st.integers(1, 300),
)
def test_every_share_is_kept_to_a_document(sources, count):
    if not sources:
        return
    made = {
        str(name): (lambda lengths=lengths: ["x" * n for n in lengths], weight)
        for name, (lengths, weight) in enumerate(sources)
    }
    mixture = Mixture(made)
    documents = list(islice(mixture, count))
    assert sum(len(document.text) for document in documents) == sum(mixture.characters.values())
    progress = [mixture.characters[name] / weight for name, (_, weight) in made.items()]
    largest_step = max(9 / weight for _, weight in made.values())
    assert max(progress) - min(progress) <= largest_step + 1e-9


def test_a_mixture_starts_anew_and_labels_strings():
    mixture = Mixture({"own": (lambda: [Document("a", "book", "p. 1"), "b"], 1)})
    assert list(islice(mixture, 2)) == [Document("a", "book", "p. 1"), Document("b", "own")]
    assert next(iter(mixture)).text == "a"
    assert mixture.characters == {"own": 1}


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_wrong_weights(weight):
    with pytest.raises(ValueError, match="weight of web"):
        Mixture({"web": (lambda: ["a"], weight)})


def test_nothing_to_mix():
    with pytest.raises(ValueError, match="at least one source"):
        Mixture({})
    with pytest.raises(ValueError, match="source web is empty"):
        next(iter(Mixture({"web": (list, 1)})))


def test_take_ends_with_the_document_that_reaches_the_number():
    documents = [Document(text, "s") for text in ("aaa", "bbb", "ccc")]
    assert [d.text for d in take(documents, 4)] == ["aaa", "bbb"]
    assert [d.text for d in take(documents, 6)] == ["aaa", "bbb"]
    assert len(list(take(documents, 100))) == 3
