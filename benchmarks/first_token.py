"""From the start of a process to the first word of an answer, beside transformers.

Each side is a process of its own that imports what it needs, loads the real 0.5B in bfloat16 from the
same safetensors folder and its tokenizer from tokenizer.json, and continues a short text by one token.
The files are in the page cache.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import measure

MODEL = "qwen2.5-coder-0.5b-instruct-gguf"
TEXT = "The capital of France is"


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--child", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.child:
        side, folder = arguments.child
        print(SIDES[side](folder))
        return
    from qwen2lite.commands.peers import as_folder
    from qwen2lite.weights.sources import resolve

    folder = as_folder(resolve(MODEL))
    for file in Path(folder).iterdir():
        file.read_bytes()
    runs: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.repeats):
        for side, seconds in runs.items():
            seconds.append(answer_time(side, folder))
    ours, theirs = (statistics.median(seconds) for seconds in runs.values())
    row = measure.Row("first token", ours, theirs, "transformers", "seconds", theirs / ours)
    measure.show([row], arguments.json)


def answer_time(side: str, folder: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, __file__, "--child", side, folder]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    assert "Paris" in done.stdout, f"{side} said {done.stdout!r}"
    return time.perf_counter() - start


def ours(folder: str) -> str:
    from qwen2lite import Qwen2Tokenizer, generate
    from qwen2lite.infer.load import load

    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    return "".join(generate(load(folder, device="cpu"), tokenizer, TEXT, max_new_tokens=1))


def transformers(folder: str) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids_BT = tokenizer(TEXT, return_tensors="pt").input_ids
    return tokenizer.decode(model.generate(ids_BT, max_new_tokens=1, do_sample=False)[0])


SIDES = {"ours": ours, "transformers": transformers}

if __name__ == "__main__":
    main()
