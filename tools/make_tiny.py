"""Writes data/qwen2-tiny from a finished run of runs/tiny.toml, its weights rounded to bfloat16.

python -m qwen2lite train runs/tiny.toml
python tools/make_tiny.py work/runs/tiny
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.weights.export import export

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    trained = parser.parse_args().run / "model"
    model = Qwen2.from_pretrained(trained, dtype=torch.bfloat16, device="cpu")
    tokenizer = Qwen2Tokenizer.from_pretrained(trained)
    place = ROOT / "data" / "qwen2-tiny"
    with tempfile.TemporaryDirectory() as folder:
        for file in export(model, Path(folder) / "tiny", tokenizer).iterdir():
            shutil.copyfile(file, place / file.name)
    print(sum(file.stat().st_size for file in place.iterdir()), "bytes in", place)


if __name__ == "__main__":
    main()
