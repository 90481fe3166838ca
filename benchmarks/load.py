"""Loading the real 0.5B in bfloat16, beside transformers' loader: seconds, and peak memory.

Each side loads in a process of its own, with the files in the page cache. The clock starts after the
imports and stops when every weight has been read once, so that a loader which only maps the file pays
for its pages too. Peak memory is what the process grew by, as a multiple of the weights' size.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import measure
import torch

from qwen2lite import Qwen2
from qwen2lite.commands.peers import as_folder
from qwen2lite.infer.clock import peak_bytes
from qwen2lite.weights.sources import resolve

MODEL = "qwen2.5-coder-0.5b-instruct-gguf"
MARKS = "marks: folder below 1.3 × the weights, GGUF below 2.5 ×"


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--child", nargs=2, metavar=("LOADER", "PATH"), help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.child:
        loader, path = arguments.child
        print(json.dumps(measured(LOADERS[loader], Path(path))))
        return
    rows, file = [], resolve(MODEL)
    for work, path in (("load bf16", Path(as_folder(file))), ("load GGUF as bf16", file)):
        rows += compare(work, path, arguments.repeats)
    measure.show(rows, arguments.json)
    if not arguments.json:
        print(MARKS)


def compare(work: str, path: Path, repeats: int) -> list[measure.Row]:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    for _ in range(repeats):
        for name, results in runs.items():
            results.append(in_a_process(name, path))
    seconds, memory = (
        {name: statistics.median(run[i] for run in results) for name, results in runs.items()}
        for i in (0, 1)
    )
    return [
        row(work, seconds, "seconds"),
        row(f"{work}, peak memory", memory, "× weights"),
    ]


def row(work: str, values: dict[str, float], unit: str) -> measure.Row:
    ours, peer = values["ours"], values["transformers"]
    return measure.Row(work, ours, peer, "transformers", unit, peer / ours)


def in_a_process(loader: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", loader, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    seconds, multiple = json.loads(done.stdout.splitlines()[-1])
    return seconds, multiple


def measured(make: Callable[[Path], Callable[[], torch.nn.Module]], path: Path) -> list[float]:
    torch.set_num_threads(2)
    load = make(path)
    before = peak_bytes()
    start = time.perf_counter()
    weights = [weight.detach() for weight in load().parameters()]
    for weight in weights:
        weight.view(torch.int16).max()
    seconds = time.perf_counter() - start
    return [seconds, (peak_bytes() - before) / sum(weight.nbytes for weight in weights)]


def ours(path: Path) -> Callable[[], torch.nn.Module]:
    return lambda: Qwen2.from_pretrained(path, dtype=torch.bfloat16, device="cpu")


def theirs(path: Path) -> Callable[[], torch.nn.Module]:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    load = transformers.Qwen2ForCausalLM.from_pretrained
    if path.is_dir():
        return lambda: load(path, dtype=torch.bfloat16)
    return lambda: load(path.parent, gguf_file=path.name, dtype=torch.bfloat16)


LOADERS = {"ours": ours, "transformers": theirs}

if __name__ == "__main__":
    main()
