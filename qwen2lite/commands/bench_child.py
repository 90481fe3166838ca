"""Measures one program with one model, as `bench` starts it: a job comes as JSON, and so do results."""

import json
import statistics
import sys
import time
from typing import Any

import torch

from qwen2lite.commands.peers import LlamaCpp, Ours, Side, Transformers
from qwen2lite.infer.ahead import fastest_writer
from qwen2lite.infer.load import load

PROMPT, READ, WRITTEN = 32, 512, 64
"""Tokens; fewer where the context is short."""


def loaded(job: dict[str, Any]) -> Side:
    """The program that a job names, with its model."""
    source, kind, device = job["source"], job["kind"], job["device"]
    if job["program"] == "transformers":
        return Transformers(source, kind, device)
    if job["program"] == "llama.cpp":
        return LlamaCpp(source, job["threads"])
    model = load(source, kind, device, job["compiled"])
    return Ours(model, fastest_writer(model))


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Loads, writes a first token, and then reads and writes `repeats` times."""
    torch.set_num_threads(job["threads"])
    side = loaded(job)
    # Ids that every vocabulary of Qwen2 has; which ones makes no difference to the time.
    ids = torch.randint(0, 255, (READ,), generator=torch.Generator().manual_seed(0)).tolist()
    ids, written = ids[: job["context"] // 2], min(WRITTEN, job["context"] // 4)
    prompt = ids[:PROMPT]
    side.write(prompt, 1)
    first = time.time() - job["started"]
    side.write(prompt, 2)  # where something is compiled or recorded, it is by now
    side.read(ids)
    reading, writing = [], []
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        side.read(ids)
        reading.append(len(ids) / (time.perf_counter() - start))
        times = side.write(prompt, written)
        writing.append((written - 1) / (times[-1] - times[0]))
    return {
        "first_token_s": first,
        "prompt_tokens": len(prompt),
        "prefill_tokens": len(ids),
        "prefill_tokens_s": statistics.median(reading),
        "decode_tokens": written,
        "decode_tokens_s": statistics.median(writing),
        "peak_bytes": side.memory(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
