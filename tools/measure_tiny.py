"""Asks each checkpoint of a run of the small world what it knows, and writes a line for each.

python -m qwen2lite train runs/tiny.toml     (with checkpoint_every = 100 and keep_checkpoints = 100)
python tools/measure_tiny.py work/runs/tiny
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.evaluate.passkey import passkey_recall
from qwen2lite.evaluate.perplexity import token_losses
from qwen2lite.train.checkpoint import tensors
from qwen2lite.train.story import story
from qwen2lite.train.tasks import copy_document
from qwen2lite.train.world import ATTRIBUTES, cloze, people

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    run = parser.parse_args().run
    model = Qwen2.from_pretrained(ROOT / "data" / "qwen2-tiny", dtype=torch.float32, device="cpu")
    tokenizer = Qwen2Tokenizer.from_pretrained(run / "data" / "tokenizer.json")
    texts = {"story": story, "copy": copy_document}
    rows = {kind: _row(tokenizer, make) for kind, make in texts.items()}
    with (ROOT / "runs" / "recorded" / "tiny_knows.jsonl").open("w", encoding="utf-8") as file:
        for checkpoint in sorted((run / "checkpoints").glob("step-*")):
            _put(model, checkpoint)
            step = int(checkpoint.name.removeprefix("step-"))
            file.write(json.dumps({"step": step, **_knows(model, tokenizer, rows)}) + "\n")
            file.flush()


def _row(tokenizer: Qwen2Tokenizer, make: Callable[[random.Random], str]) -> list[int]:
    """Texts of a kind that no run has read, end to end."""
    rng, end = random.Random("not trained on"), tokenizer.special_tokens["<|endoftext|>"]

    def ids() -> Iterator[int]:
        for _ in range(150):
            yield from [*tokenizer.encode(make(rng)), end]

    return list(ids())


@torch.no_grad()
def _put(model: Qwen2, checkpoint: Path) -> None:
    saved = load_file(checkpoint / "model.safetensors")
    for name, tensor in tensors(model).items():
        tensor.copy_(saved[name])


def _knows(model: Qwen2, tokenizer: Qwen2Tokenizer, rows: dict[str, list[int]]) -> dict[str, float]:
    losses = {kind: float(token_losses(model, row, 256).mean()) for kind, row in rows.items()}
    asked = [(person, attribute) for person in people() for attribute in ATTRIBUTES]
    told, new = (exact_match(model, tokenizer, [cloze(p, a, held_out) for p, a in asked])
                 for held_out in (False, True))  # fmt: skip
    found = passkey_recall(model, tokenizer, [64, 128, 192, 256], tries=5)
    shares = {"facts": sum(told) / len(told), "facts_in_new_words": sum(new) / len(new)}
    shares["keys"] = sum(map(sum, found)) / sum(map(len, found))
    return {name: round(value, 4) for name, value in {**losses, **shares}.items()}


if __name__ == "__main__":
    main()
