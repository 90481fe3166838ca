"""bench: how fast a model reads and writes here, beside other programs and the machine's own limits."""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen2lite.infer.roofline import Roofline
    from qwen2lite.model.config import Qwen2Config

PEERS = ("transformers", "llama.cpp")
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.625}
"""Of a weight; int4 has a scale and a zero of 2 bytes each for 32 weights."""
EXPLANATION = """\
first token: from the start of the process, after a prompt of {prompt} tokens
prefill: a prompt of {prefill} tokens, its last position scored · decode: {decode} tokens after {prompt}
share: of what this machine could do at most. It reads {bandwidth:.1f} GB/s, which bounds decode, and
multiplies {rate:.2f} TFLOP/s in {dtype}, which bounds prefill; both as measured just before."""
_ROW = "{:<12}  {:<19}  {:>11}  {:>8}  {:>5}  {:>8}  {:>5}  {:>11}"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the command line."""
    bench = commands.add_parser("bench", help="speed and memory, beside others and the limits")
    flag = bench.add_argument
    flag("--model", help="name, folder or .gguf file (default: the fetched 0.5B)")
    flag("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    flag("--dtype", help="formats, with commas between (default: all that are fast there)")
    flag("--peer", default="", help=f"with commas between: {', '.join(PEERS)}")
    flag("--compile", action="store_true", help="compiled decode steps too, as rows of their own")
    flag("--repeats", type=int, default=5, help="runs; the median counts (default: 5)")
    flag("--threads", type=int, help="of the CPU (default: PyTorch's choice)")
    flag("--json", action="store_true", help="print one JSON object in place of the table")
    bench.set_defaults(run=_bench)


def _bench(flags: argparse.Namespace) -> None:
    import torch

    from qwen2lite.commands.talk import source_of
    from qwen2lite.infer.roofline import measure_roofline
    from qwen2lite.model.config import Qwen2Config
    from qwen2lite.model.device import pick_device, pick_dtype
    from qwen2lite.weights.checkpoint import open_checkpoint

    for name in ("threads", "repeats"):
        if (value := getattr(flags, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more, got {value}")
    if flags.threads:
        torch.set_num_threads(flags.threads)
    device, source = pick_device(flags.device), source_of(flags)
    with open_checkpoint(source) as checkpoint:
        config = Qwen2Config.from_dict(checkpoint.config)
    shared = {
        "source": source,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": flags.repeats,
        "context": config.context_length,
    }
    # The limits come last: a process counts its parent's memory as its own peak.
    found = [(job, measured) for job in _jobs(flags, shared) if (measured := _measured(job))]
    if not found:
        raise ValueError("nothing could be measured")
    dtype = torch.bfloat16 if device.type == "cpu" else pick_dtype(device)
    limits = measure_roofline(device, dtype)
    rows = [_row(job, measured, config, limits) for job, measured in found]
    if flags.json:
        facts = {"model": str(source), "device": str(device), "torch": torch.__version__}
        print(json.dumps(facts | {"limits": asdict(limits), "rows": rows}))
    else:
        _show(rows, limits, str(dtype).removeprefix("torch."))


def _jobs(flags: argparse.Namespace, shared: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process is to measure."""
    from qwen2lite.commands.peers import as_folder
    from qwen2lite.weights.sources import resolve

    peers = [name for name in flags.peer.split(",") if name]
    if strange := [name for name in peers if name not in PEERS]:
        raise ValueError(f"no peer is called {strange[0]!r}; there are {' and '.join(PEERS)}")
    fast = ("bfloat16", "int8", "int4") if shared["device"] == "cpu" else ("bfloat16",)
    kinds = flags.dtype.split(",") if flags.dtype else fast
    if strange := [kind for kind in kinds if kind not in BYTES]:
        raise ValueError(f"no format is called {strange[0]!r}; there are {', '.join(BYTES)}")
    jobs = [
        shared | {"program": "qwen2lite", "kind": kind, "compiled": compiled}
        for kind in kinds
        for compiled in (False, True)[: 1 + flags.compile]
    ]
    path = resolve(shared["source"])
    if "transformers" in peers:
        jobs.append(
            shared | {"program": "transformers", "kind": "bfloat16", "source": as_folder(path)}
        )
    if "llama.cpp" in peers:
        if path.is_dir():
            raise ValueError(f"llama.cpp reads .gguf files, and {path} is a folder; leave it out")
        jobs.append(shared | {"program": "llama.cpp", "kind": "gguf", "source": str(path)})
    return jobs


def _measured(job: dict[str, Any]) -> dict[str, float] | None:
    """Measures in a process of its own, so that memory and the first token are the job's alone.

    What can't be measured says why, and is None.
    """
    name = f"{job['program']} {job['kind']}"
    print(f"measuring {name} …", file=sys.stderr)
    command = [sys.executable, "-m", "qwen2lite.commands.bench_child"]
    started = json.dumps(job | {"started": time.time()})
    done = subprocess.run(
        [*command, started], capture_output=True, encoding="utf-8", errors="replace"
    )
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    print(f"  left out: {reason}", file=sys.stderr)
    return None


def _row(
    job: dict[str, Any], found: dict[str, float], config: "Qwen2Config", limits: "Roofline"
) -> dict[str, Any]:
    from qwen2lite.train.cost import multiplied, prefill_flops

    length = int(found["prefill_tokens"])
    flops = prefill_flops(config, length)
    if job["kind"] == "gguf":
        read = float(Path(job["source"]).stat().st_size)
    else:
        read = multiplied(config, active=True) * BYTES[job["kind"]]
    compiled = " compiled" if job.get("compiled") else ""
    return {
        "program": job["program"],
        "format": job["kind"] + compiled,
        **found,
        "prefill_share": flops / length * found["prefill_tokens_s"] / limits.rate,
        "decode_share": read * found["decode_tokens_s"] / limits.bandwidth,
    }


def _show(rows: list[dict[str, Any]], limits: "Roofline", dtype: str) -> None:
    heads = ("program", "format", "first token", "prefill", "share", "decode", "share")
    print(_ROW.format(*heads, "peak memory"))
    print(_ROW.format("", "", "s", "tokens/s", "", "tokens/s", "", "MB"))
    for row in rows:
        print(
            _ROW.format(
                row["program"],
                row["format"],
                f"{row['first_token_s']:.1f}",
                f"{row['prefill_tokens_s']:,.0f}",
                f"{row['prefill_share']:.0%}",
                f"{row['decode_tokens_s']:,.1f}",
                f"{row['decode_share']:.0%}",
                f"{row['peak_bytes'] / 1e6:,.0f}",
            )
        )
    counts = {name: rows[0][f"{name}_tokens"] for name in ("prompt", "prefill", "decode")}
    speeds = {"bandwidth": limits.bandwidth / 1e9, "rate": limits.rate / 1e12, "dtype": dtype}
    print("\n" + EXPLANATION.format(**counts, **speeds))
