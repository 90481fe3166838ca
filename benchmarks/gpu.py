"""The 0.5B on a GPU in bfloat16: one text, 64 texts, and a prompt of 32,768 tokens.

The weights are the real ones where they are fetched, else random ones of the same shape; which is
said. Peers are transformers as it comes, and with its compiled static cache. Marks, on an H100: one
text ≥ 1,500 tokens/s, ≥ 10 × transformers and ≥ 2 × its compiled cache; 64 texts ≥ 25,000 tokens/s;
the prompt ≥ 35 % of 989 TFLOP/s. With --small a tiny model runs through the same code on any machine,
and its figures mean nothing.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import partial

import measure
import torch
import transformers
from generate import same_weights

from qwen2lite import CONFIGS, Qwen2
from qwen2lite.commands.peers import Ours, Side, Transformers
from qwen2lite.infer.ahead import generate_ahead
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.fused import fuse, fuses
from qwen2lite.infer.sample import CHAT_SAMPLING
from qwen2lite.model.device import pick_device, pick_dtype
from qwen2lite.train.cost import prefill_flops
from qwen2lite.weights.sources import default_model

PEAK_FLOPS = 989e12
"""Of an H100 SXM in dense bfloat16 products, by its data sheet."""
SMALL = {
    "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--small", action="store_true", help="a tiny model, on any machine")
    options = flags.parse_args()
    if not options.small and not torch.cuda.is_available():
        sys.exit("there is no GPU here, so nothing is measured; --small tries the code out")
    device = pick_device("auto")
    model, weights = loaded(options.small, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{name} · {versions} · {weights} weights", file=sys.stderr)
    peer = same_weights(model)
    tokens, texts, length = (16, 4, 512) if options.small else (256, 64, 32768)
    rows = [
        *one_text(options.repeats, model, peer, tokens),
        drawn(options.repeats, model, tokens),
        many_texts(options.repeats, model, texts),
        long_prompt(options.repeats, model, length),
    ]
    measure.show(rows, options.json)


def loaded(small: bool, device: torch.device) -> tuple[Qwen2, str]:
    """The model, and whether its weights are real."""
    dtype = pick_dtype(device)
    if not small and (source := default_model()):
        return Qwen2.from_pretrained(source, dtype, device), f"real ({source})"
    config = dataclasses.replace(CONFIGS["qwen2-0.5b"], **(SMALL if small else {}))
    torch.manual_seed(0)
    with device:
        return Qwen2(config).to(dtype).eval(), "random"


def one_text(
    repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, tokens: int
) -> list[measure.Row]:
    prompt = list(range(100, 132))
    kernels = {"fused": Ours(fuse(model), generate_ahead)} if fuses(model) else {}
    sides = {
        **kernels,
        "recorded": Ours(CompiledQwen2(model, with_compiler=False), generate_ahead),
        "as it is": Ours(model),
        "transformers": Transformers(peer),
        "transformers, compiled static cache": Transformers(peer, cache_implementation="static"),
    }
    rates = measure.medians(repeats, *(writing(side, prompt, tokens) for side in sides.values()))
    named = dict(zip(sides, rates, strict=True))
    return [
        measure.Row(f"decode, {own}", named[own], named[other], other, "tokens/s", ratio)
        for own in list(sides)[:-2]
        for other in list(sides)[-2:]
        for ratio in [named[own] / named[other]]
    ]


def drawn(repeats: int, model: Qwen2, tokens: int) -> measure.Row:
    """What it costs to draw each token, with the settings of a chat."""
    fast, prompt = fuse(model), list(range(100, 132))
    sides = Ours(fast, draw_ahead), Ours(fast, generate_ahead)
    rates = measure.medians(repeats, *(writing(side, prompt, tokens) for side in sides))
    work = "decode, drawn as in a chat"
    return measure.Row(work, *rates, "ours, the likeliest", "tokens/s", rates[0] / rates[1])


def draw_ahead(model: Qwen2, prompt: list[int], tokens: int) -> Iterator[int]:
    return generate_ahead(model, prompt, tokens, CHAT_SAMPLING.sampler())


def writing(side: Side, prompt: list[int], tokens: int) -> Callable[[], float]:
    def rate() -> float:
        times = side.write(prompt, tokens)
        return (tokens - 1) / (times[-1] - times[0])

    return rate


def many_texts(repeats: int, model: Qwen2, texts: int, tokens: int = 96) -> measure.Row:
    """Texts of so many tokens that all of them need the smallest cache: one size is compiled."""
    prompts = [list(range(100 + n, 132 + n)) for n in range(texts)]

    def tokens_a_second(batch: Qwen2) -> float:
        # The time of the first token of each, with the reading before it, is taken off.
        first, all_of_them = (
            measure.seconds(partial(generate_batch, batch, prompts, count, rows=texts))
            for count in (1, tokens)
        )
        return texts * (tokens - 1) / (all_of_them - first)

    compiled = CompiledQwen2(model)
    rates = measure.medians(
        repeats, lambda: tokens_a_second(compiled), lambda: tokens_a_second(model)
    )
    work = f"decode, {texts} texts, compiled"
    return measure.Row(work, *rates, "ours, as it is", "tokens/s", rates[0] / rates[1])


def long_prompt(repeats: int, model: Qwen2, length: int) -> measure.Row:
    ids = (torch.arange(length) % 900 + 50).tolist()
    (seconds,) = measure.median_seconds(repeats, lambda: Ours(model).read(ids))
    reached = prefill_flops(model.config, length) / seconds
    figures = (reached / 1e12, PEAK_FLOPS / 1e12, "an H100's peak", "TFLOP/s")
    return measure.Row(f"prefill {length:,} tokens", *figures, reached / PEAK_FLOPS)


if __name__ == "__main__":
    main()
