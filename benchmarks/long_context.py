"""Dual chunks on long texts: the time of a prefill, needles found, and memory.

`dca prefill`: one attention layer in the shape of the 0.5B reads 32,768 tokens, in chunks of
chunk_size 8,192 and with full attention. A ratio below 1 is what the chunks cost; wanted is 0.67 or
more, one and a half times the time. `needles` and `memory` are the whole model's, at 32K to 128K
tokens, and want a GPU. With --small the same code runs on data/qwen2-tiny, on any machine.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import measure
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.evaluate.passkey import resumable_recall
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
    flags.add_argument("--file", default="needles.jsonl", help="finished cells; run again to go on")
    options = flags.parse_args()
    aside = sys.stderr if options.json else sys.stdout
    if not options.small:
        torch.set_num_threads(2)
    rows = prefill_rows(options, 2048 if options.small else 32768, 512 if options.small else 8192)
    measure.show(rows, options.json)
    if not options.small and not torch.cuda.is_available():
        print("needles at 32K to 128K, and their memory: no GPU here: not measured", file=aside)
        return
    source: str | Path = TINY if options.small else default_model()
    plain, tokenizer = Qwen2.from_pretrained(source), Qwen2Tokenizer.from_pretrained(source)
    trained = 256 if options.small else 32768
    lengths = [trained, 2 * trained, 4 * trained]
    ways = readers(plain, trained)
    print(f"needles found by {source}: tokens, then a share for each depth", file=aside)
    for name, model in ways.items():
        grid = resumable_recall(
            model, tokenizer, lengths, tries=2, file=options.file, name=f"{source}, {name}"
        )
        for length, shares in zip(lengths, grid, strict=True):
            print(f"{name:22} {length:8,}  {' '.join(f'{s:4.0%}' for s in shares)}", file=aside)
    megabytes = memory_beyond_weights_and_cache(ways["dca + temperature"], lengths[-1])
    print(f"memory of a prefill beside weights and cache: {megabytes:.0f} MB", file=aside)


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
        measure.Row(work, *seconds, peer, "s", seconds[1] / seconds[0]),
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
            torch.cuda.synchronize()

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


def memory_beyond_weights_and_cache(model: Qwen2, length: int) -> float:
    cache = model.new_cache(length)
    ids_BT = torch.zeros(1, length, dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def run() -> None:
        for piece in ids_BT.split(PIECE, dim=1):
            model(piece, cache, last_only=True)

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
