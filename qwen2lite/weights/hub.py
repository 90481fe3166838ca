"""Models of the Hugging Face Hub, through its own client."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from qwen2lite.weights.sources import HubSource

_WANTED = ["*.safetensors", "*.json", "merges.txt", "LICENSE"]
_SECONDS_TO_ANSWER = 5.0


class HubUnreachableError(OSError):
    """The Hub doesn't answer from here."""


def fetch_from_hub(source: HubSource, target: Path, part: Path) -> None:
    """Downloads a repository's weights, config and tokenizer into the folder `target`.

    Files are taken from one commit and compared with the sha256 that the Hub publishes for them.

    Args:
        source: names the repository.
        target: the folder's final name, given when all is there.
        part: its name until then.

    Raises:
        HubUnreachableError: no answer.
        OSError: the connection broke, or a file of the weights didn't come.
        ValueError: a file differs from the published one; it is deleted.
    """
    from huggingface_hub import snapshot_download

    info = _published(source)
    # By commit: asked for a branch, the client takes an unfinished folder for whole when offline.
    try:
        snapshot_download(
            source.repo, revision=info.sha, local_dir=part, allow_patterns=_WANTED, max_workers=4
        )
    except OSError:
        raise
    except Exception as error:  # the errors of the client's HTTP library have no base of their own
        raise OSError(
            f"the download of {source.repo} broke off ({_first_line(error)}); what has arrived is "
            f"kept; go on with: python -m qwen2lite fetch {source.name}"
        ) from None
    _check(info, part)
    shutil.rmtree(part / ".cache", ignore_errors=True)
    Path(part).replace(target)


def _published(source: HubSource) -> Any:
    """The commit that stands on the Hub now, and its files with their sizes and checksums."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(source.repo, timeout=_SECONDS_TO_ANSWER, files_metadata=True)
    except Exception as error:
        raise HubUnreachableError(
            f"the Hugging Face Hub can't be asked for {source.repo} ({_first_line(error)}); check "
            "the network, or take another source: python -m qwen2lite fetch default"
        ) from None


def _check(info: Any, folder: Path) -> None:
    for entry in info.siblings:
        file = folder / entry.rfilename
        if entry.rfilename.endswith(".safetensors") and not file.is_file():
            raise OSError(
                f"{entry.rfilename} has not arrived; fetch again, it goes on where it was"
            )
        if entry.lfs is None or not file.is_file():
            continue
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != entry.lfs.sha256:
            file.unlink()
            raise ValueError(
                f"{file.name} arrived with sha256 {found[:12]}… instead of "
                f"{entry.lfs.sha256[:12]}… and is deleted; fetch again"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
