"""Reading and writing with the real 0.5B on a CPU, beside transformers and llama.cpp in one run.

Ours and transformers hold the same bfloat16 weights; llama.cpp reads the .gguf file they came from, and
forms of it that it quantises itself. `decode` is the time from the first token to the last after a
prompt of 32 tokens; `batch 8 decode` takes eight prompts of 25 to 32 tokens, padded on the left, and
counts the tokens of all rows; `prefill` scores only the last position. How fast drafts are depends on
the text, so `decode, drafted` answers five questions, each side the same ones. Without llama-cpp-python
its rows are left out, and that is said.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import measure
import torch
import transformers

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.commands.peers import LlamaCpp, Ours, Side, Ticks, Transformers
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.load import load
from qwen2lite.infer.padding import left_pad
from qwen2lite.infer.speculate import Draft, speculate_ids
from qwen2lite.text.chat import encode_chat
from qwen2lite.weights.sources import resolve

MODEL = "qwen2.5-coder-0.5b-instruct-gguf"
THREADS, PROMPT, TOKENS = 2, 32, 32
QUESTIONS = (
    "Write a Python function that checks whether a string is a palindrome.",
    "How do I sort a dictionary by value in Python?",
    "Explain in a few sentences why the sky is blue.",
    "What is the capital of France and what is it known for?",
    "Tell me a short story about a fox and a lighthouse.",
)
ANSWER = 64
"""Tokens of each answer."""


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    plain = Qwen2.from_pretrained(MODEL, dtype=torch.bfloat16, device="cpu")
    peer = same_weights(plain)
    ids = torch.randint(0, 100_000, (2048,), generator=torch.Generator().manual_seed(0)).tolist()
    ours = {kind: Ours(load(MODEL, kind, "cpu")) for kind in ("bfloat16", "int8", "int4")}
    theirs = {"transformers": Transformers(peer)}
    ours["int4 compiled"] = Ours(load(MODEL, "int4", "cpu", compiled=True))
    with tempfile.TemporaryDirectory() as folder:
        others = llama_cpp(Path(folder))
        rows = [
            *decode_rows(flags.repeats, ours, plain, peer, others, ids[:PROMPT]),
            *drafted_rows(
                flags.repeats, ours["bfloat16"], ours["int4"].model, theirs["transformers"]
            ),
            batch_row(flags.repeats, ours["bfloat16"].model, peer, ids),
            *prefill_rows(flags.repeats, ours, theirs | others, ids[:512]),
            *prefill_rows(flags.repeats, {"bfloat16": ours["bfloat16"]}, theirs, ids),
        ]
    measure.show(rows, flags.json)


def same_weights(model: Qwen2) -> transformers.Qwen2ForCausalLM:
    values = {k: v for k, v in model.config.to_dict().items() if k != "architectures"}
    with torch.device("meta"):
        peer = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**values))
    peer.load_state_dict(dict(model.named_parameters()), strict=False, assign=True)
    peer.tie_weights()
    rotary = peer.model.rotary_emb  # its buffers are in no checkpoint
    peer.model.rotary_emb = type(rotary)(config=peer.config)
    return peer.eval()


def llama_cpp(folder: Path) -> dict[str, Side]:
    """The file as it is, and re-quantised by llama.cpp; nothing where it isn't installed."""
    try:
        import llama_cpp
    except ImportError:
        print("llama.cpp isn't measured: pip install llama-cpp-python")
        return {}
    file = resolve(MODEL)
    sides = {"llama.cpp Q4_K_M": LlamaCpp(file, THREADS)}
    for name in ("Q8_0", "Q4_0"):
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
        params.allow_requantize = True
        out = folder / f"{name}.gguf"
        llama_cpp.llama_model_quantize(str(file).encode(), str(out).encode(), params)
        sides[f"llama.cpp {name}"] = LlamaCpp(out, THREADS)
    return sides


def decode_rows(
    repeats: int,
    ours: dict[str, Ours],
    plain: Qwen2,
    peer: transformers.PreTrainedModel,
    others: dict[str, Side],
    prompt: list[int],
) -> Iterator[measure.Row]:
    theirs = Transformers(peer)

    def under_our_flags() -> float:
        with fastest_products(plain.device, plain.dtype, rows=1):
            return rate(theirs.write(prompt, TOKENS))

    def writing(side: Side) -> Callable[[], float]:
        return lambda: rate(side.write(prompt, TOKENS))

    sides = {name: writing(side) for name, side in {**ours, **others}.items()}
    sides["transformers"] = writing(theirs)
    sides["transformers, our flags"] = under_our_flags
    sides["ours, not packed"] = writing(Ours(plain))
    rates = dict(zip(sides, measure.medians(repeats, *sides.values()), strict=True))
    pairs = [
        ("bfloat16", "transformers"),
        ("bfloat16", "transformers, our flags"),
        ("bfloat16", "ours, not packed"),
        ("int8", "bfloat16"),
        ("int8", "llama.cpp Q8_0"),
        ("int4", "bfloat16"),
        *((kind, f"llama.cpp {name}") for kind in ("int4", "int4 compiled")
          for name in ("Q4_K_M", "Q4_0")),
    ]  # fmt: skip
    for kind, other in pairs:
        if other in rates:
            figures = (rates[kind], rates[other], f"ours, {other}" if other in ours else other)
            ratio = rates[kind] / rates[other]
            yield measure.Row(f"decode {kind}", *figures, "tokens/s", ratio)


def rate(times: list[float], wanted: int = TOKENS) -> float:
    """Tokens a second from the first to the last."""
    assert len(times) == wanted, f"{len(times)} tokens came, not {wanted}"
    return (wanted - 1) / (times[-1] - times[0])


def drafted_rows(
    repeats: int, plain: Ours, draft: Qwen2, theirs: Transformers
) -> Iterator[measure.Row]:
    tokenizer = Qwen2Tokenizer.from_pretrained(MODEL)
    turns = ([{"role": "user", "content": question}] for question in QUESTIONS)
    prompts = [encode_chat(tokenizer, turn) for turn in turns]
    drafted = Ours(plain.model, partial(speculate_ids, draft=Draft(draft)))

    def answering(side: Side) -> Callable[[], float]:
        def run() -> float:
            rates = [rate(side.write(prompt, ANSWER), ANSWER) for prompt in prompts]
            return statistics.harmonic_mean(rates)

        return run

    sides = (drafted, plain, theirs)
    our_rate, *others = measure.medians(repeats, *map(answering, sides))
    for name, other in zip(("ours, not drafted", "transformers"), others, strict=True):
        figures = (our_rate, other, name, "tokens/s", our_rate / other)
        yield measure.Row("decode bfloat16, drafted in int4", *figures)


def batch_row(
    repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, ids: list[int]
) -> measure.Row:
    prompts = [ids[PROMPT * n : PROMPT * (n + 1) - n] for n in range(8)]
    ids_BT, padding_B = left_pad(prompts)
    attended = (torch.arange(PROMPT) >= padding_B[:, None]).long()
    limits = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "pad_token_id": 0}

    def timed(module: torch.nn.Module, write: Callable[[], object]) -> float:
        ticks = Ticks()
        scored = module.register_forward_hook(lambda *_: ticks.put("a token of each row"))
        write()
        scored.remove()
        return 8 * rate(ticks.times)

    def ours() -> float:
        return timed(model, lambda: generate_batch(model, prompts, TOKENS, rows=8))

    def theirs() -> float:
        settings = {"attention_mask": attended, "do_sample": False, **limits}
        return timed(peer, lambda: peer.generate(ids_BT, **settings))

    our_rate, their_rate = measure.medians(repeats, ours, theirs)
    figures = (our_rate, their_rate, "transformers", "tokens/s", our_rate / their_rate)
    return measure.Row("batch 8 decode bfloat16", *figures)


def prefill_rows(
    repeats: int, ours: dict[str, Ours], others: dict[str, Side], ids: list[int]
) -> Iterator[measure.Row]:
    peers = {name: others[name] for name in ("transformers", "llama.cpp Q4_K_M") if name in others}
    kinds = [kind for kind in ("bfloat16", "int8", "int4") if kind in ours]
    sides = [*(ours[kind] for kind in kinds), *peers.values()]
    seconds = measure.median_seconds(repeats, *(lambda side=side: side.read(ids) for side in sides))
    rates = [len(ids) / taken for taken in seconds]
    for kind, our_rate in zip(kinds, rates, strict=False):
        for name, their_rate in zip(peers, rates[len(kinds) :], strict=True):
            figures = (our_rate, their_rate, name, "tokens/s", our_rate / their_rate)
            yield measure.Row(f"prefill {len(ids)} {kind}", *figures)


if __name__ == "__main__":
    main()
