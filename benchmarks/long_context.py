"""Dual chunks on long texts: the time of a prefill, keys found, and memory.

`dca prefill`: one attention layer in the shape of the 0.5B reads 32,768 tokens, in chunks of
chunk_size 8,192 and with full attention. A ratio below 1 is what the chunks cost; wanted is 0.67 or
more, one and a half times the time. Then the whole model reads texts of 32K to 128K tokens, each
with ten keys in it, in four ways. One reading of 128K tokens takes half an hour on two cores beside
other work: finished ones are kept, and a run that was stopped goes on. With --small the same code runs
on data/qwen2-tiny, which finds nothing: it doesn't know the question.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import measure
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.evaluate.finished import Finished
from qwen2lite.evaluate.many_keys import recalled_keys
from qwen2lite.model.config import CONFIGS
from qwen2lite.model.device import pick_device, pick_dtype
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Decoder
from qwen2lite.weights.sources import default_model

TINY = Path(__file__).parents[1] / "data" / "qwen2-tiny"
PIECE = 4096
"""Tokens of a prefill in pieces, as a server with little memory reads a long prompt."""


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--small", action="store_true", help="qwen2-tiny and short texts")
    flags.add_argument("--file", default="keys.jsonl", help="finished readings; run again to go on")
    flags.add_argument("--texts", type=int, default=1, help="texts of each length")
    flags.add_argument("--lengths", type=int, nargs="+", help="tokens (default: 1, 2, 4 × trained)")
    options = flags.parse_args()
    aside = sys.stderr if options.json else sys.stdout
    if not options.small:
        if not default_model():
            sys.exit("no model is fetched yet; run: python -m qwen2lite fetch, or try --small")
        torch.set_num_threads(2)
    rows = prefill_rows(options, 2048 if options.small else 32768, 512 if options.small else 8192)
    measure.show(rows, options.json)
    whole_model(options, aside)


def whole_model(options: argparse.Namespace, aside: TextIO) -> None:
    """Keys found by each way of reading, and the memory of the last."""
    source: str | Path = TINY if options.small else default_model()
    plain, tokenizer = Qwen2.from_pretrained(source), Qwen2Tokenizer.from_pretrained(source)
    trained = 512 if options.small else 32768
    ways = readers(plain, trained)
    print(f"keys found by {source}, {plain.dtype}, from the first to the last", file=aside)
    lengths = options.lengths or [trained, 2 * trained, 4 * trained]
    for length in lengths:
        for name, model in ways.items():
            name = f"{source}, {name}"
            for seed in range(options.texts):
                reading = read(model, tokenizer, options.file, name, length, seed)
                print(sentence(name, length, *reading), file=aside, flush=True)
    megabytes = memory_beyond_weights_and_cache(ways["dca + temperature"], max(lengths))
    print(f"beside weights and cache, {max(lengths):,} tokens: {megabytes:.0f} MB", file=aside)


def prefill_rows(options: argparse.Namespace, length: int, chunk_size: int) -> list[measure.Row]:
    """One layer: both sides hold the same weights, and their tables are made beforehand."""
    device = pick_device("auto")
    dtype = pick_dtype(device)
    chunks = {"chunk_size": chunk_size, "local_size": chunk_size // 8}
    plain = dataclasses.replace(CONFIGS["qwen2-0.5b"], num_hidden_layers=1, vocab_size=1)
    full = Decoder(plain, Parts()).to(device, dtype)
    chunked_config = dataclasses.replace(plain, dual_chunk_attention_config=chunks)
    chunked = Decoder(chunked_config, Parts()).to(device, dtype)
    chunked.load_state_dict(full.state_dict())
    torch.manual_seed(0)
    x_BTD = torch.randn(1, length, plain.hidden_size).to(device, dtype)
    sides = [attention_step(decoder, x_BTD) for decoder in (chunked, full)]
    seconds = measure.median_seconds(options.repeats, *sides)
    peaks = [peak_megabytes(side, device) for side in sides]
    work = f"dca prefill {length // 1024}K, chunk {chunk_size}, one layer, {device.type}"
    peer = "full attention"
    return [
        measure.Row(work, *(1e3 * s for s in seconds), peer, "ms", seconds[1] / seconds[0]),
        measure.Row(f"{work}: peak", *peaks, peer, "MB", peaks[1] / max(peaks[0], 1e-9)),
    ]


def attention_step(decoder: Decoder, x_BTD: torch.Tensor) -> Callable[[], None]:
    """A run of the only layer's attention, on the tables that its decoder makes."""
    attention = decoder.layers[0].self_attn
    positions_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    cos, sin = (table.to(x_BTD.dtype) for table in decoder.tables(positions_T))

    @torch.inference_mode()
    def run() -> None:
        attention(x_BTD, cos, sin)
        if x_BTD.is_cuda:
            torch.cuda.synchronize(x_BTD.device)

    return run


def readers(plain: Qwen2, trained: int) -> dict[str, Qwen2]:
    """The same weights, read in four ways. Chunks are those of the published code for Qwen."""
    chunks = {"chunk_size": trained * 3 // 4, "local_size": trained // 16}
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": trained}
    changes = {
        "full attention": {},
        "yarn": {"rope_scaling": scaling},
        "dca": {"dual_chunk_attention_config": chunks},
        "dca + temperature": {
            "dual_chunk_attention_config": chunks | {"original_max_position_embeddings": trained}
        },
    }
    return {name: with_config(plain, trained * 4, change) for name, change in changes.items()}


def with_config(plain: Qwen2, longest: int, change: dict[str, object]) -> Qwen2:
    config = dataclasses.replace(plain.config, max_position_embeddings=longest, **change)
    with torch.device("meta"):
        model = Qwen2(config)
    model.load_state_dict(plain.state_dict(), assign=True)
    return model.eval()


def read(
    model: Qwen2, tokenizer: Qwen2Tokenizer, file: str, name: str, length: int, seed: int
) -> tuple[list[bool], float]:
    """Keys found in one text and the seconds it took, measured now or taken from the file."""
    finished = Finished(file)
    text = {"name": name, "length": length, "seed": seed}
    if finished.get(**text) is None:
        start = time.perf_counter()
        found = recalled_keys(model, tokenizer, length, seed=seed)
        finished.keep([found, time.perf_counter() - start], **text)
    found, seconds = finished.get(**text)
    return found, seconds


def sentence(name: str, length: int, found: list[bool], seconds: float) -> str:
    keys = "".join("x" if right else "." for right in found)
    return f"{name:60} {length:8,} tokens  {keys} {sum(found):2}/{len(found)}  {seconds:6.0f} s"


def memory_beyond_weights_and_cache(model: Qwen2, length: int) -> float:
    """Of the last piece of a text, which has the most keys to look at."""
    cache = model.new_cache(length)
    for kept in (*cache._keys, *cache._values):
        kept.normal_()  # written, so that the memory is taken before the measurement
    piece_BT = torch.zeros(1, min(PIECE, length // 4), dtype=torch.long, device=model.device)
    cache.length = length - piece_BT.shape[1]

    @torch.inference_mode()
    def run() -> None:
        model(piece_BT, cache, last_only=True)

    return peak_megabytes(run, model.device)


def peak_megabytes(run: Callable[[], None], device: torch.device) -> float:
    """The most memory that a run takes beyond what is there before it.

    On the CPU Linux tells, and only for large tensors: small ones come out of what the process has
    kept from before, so that a run of --small may show nothing.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    clear.write_text("5", encoding="utf-8")  # sets the highest mark back to what is taken now
    before = kilobytes("VmRSS")
    run()
    return (kilobytes("VmHWM") - before) * 1024 / 1e6


def kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


if __name__ == "__main__":
    main()
