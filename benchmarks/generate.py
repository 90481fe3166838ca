"""Decoding and prefill of the real 0.5B in bfloat16, beside transformers in the same run.

Both sides hold the same weights: transformers' model gets the tensors that ours loaded, and ours are
packed for the CPU as `chat` packs them. `decode` is the time from the first token to the last, after a
prompt of 32 tokens; `batch 8 decode` takes eight prompts of 25 to 32 tokens, padded on the left, and
counts the tokens of all rows; `prefill` scores only the last position.
"""

import time
from collections.abc import Iterator

import measure
import torch
import transformers

from qwen2lite import Qwen2
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import pack
from qwen2lite.infer.padding import left_pad
from qwen2lite.weights.sources import default_model

THREADS, PROMPT, TOKENS = 2, 32, 32


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    model = Qwen2.from_pretrained(default_model(), dtype=torch.bfloat16, device="cpu")
    peer = same_weights(model)
    ids = torch.randint(0, 100_000, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    ours = pack(model)
    rows = [
        *decode_rows(flags.repeats, ours, model, peer, ids[:PROMPT]),
        batch_row(flags.repeats, ours, peer, ids),
        prefill_row(flags.repeats, ours, peer, ids),
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


def decode_rows(
    repeats: int, ours: Qwen2, plain: Qwen2, peer: transformers.PreTrainedModel, prompt: list[int]
) -> Iterator[measure.Row]:
    def theirs() -> float:
        limits = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        peer.generate(
            torch.tensor([prompt]), do_sample=False, pad_token_id=0, streamer=ticks, **limits
        )
        return ticks.rate()

    def under_our_flags() -> float:
        with fastest_products(plain.device, plain.dtype, rows=1):
            return theirs()

    ticks = Ticks()
    sides = {
        "ours": lambda: ticks.watch(generate_ids(ours, prompt, TOKENS)),
        "transformers generate": theirs,
        "transformers, our flags": under_our_flags,
        "our model, not packed": lambda: ticks.watch(generate_ids(plain, prompt, TOKENS)),
    }
    rates = measure.medians(repeats, *sides.values())
    works = ("decode bf16", "decode bf16, peer under our flags", "decode bf16, beside unpacked")
    for work, peer_name, rate in zip(works, list(sides)[1:], rates[1:], strict=True):
        yield measure.Row(work, rates[0], rate, peer_name, "tokens/s", rates[0] / rate)


class Ticks:
    """Tokens a second from the first token to the last; also a streamer of transformers'."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        """transformers calls this with the prompt, and then with each token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """transformers calls this last."""

    def watch(self, tokens: Iterator[int]) -> float:
        self.put("the prompt")
        for token in tokens:
            self.put(token)
        return self.rate()

    def rate(self) -> float:
        first, *_, last = self.times[1:]
        count, self.times = len(self.times) - 1, []
        assert count == TOKENS, f"{count} tokens came, not {TOKENS}"
        return (count - 1) / (last - first)


def batch_row(
    repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, ids: list[int]
) -> measure.Row:
    prompts = [ids[PROMPT * n : PROMPT * (n + 1) - n] for n in range(8)]
    ids_BT, padding_B = left_pad(prompts)
    attended = (torch.arange(PROMPT) >= padding_B[:, None]).long()
    ticks = Ticks()

    def ours() -> float:
        scored = model.register_forward_hook(lambda *_: ticks.put("a token of each row"))
        ticks.put("the prompts")
        generate_batch(model, prompts, TOKENS, rows=8)
        scored.remove()
        return ticks.rate()

    def theirs() -> float:
        scored = peer.register_forward_hook(lambda *_: ticks.put("a token of each row"))
        ticks.put("the prompts")
        limits = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        peer.generate(ids_BT, attention_mask=attended, do_sample=False, pad_token_id=0, **limits)
        scored.remove()
        return ticks.rate()

    rate, their_rate = (8 * steps for steps in measure.medians(repeats, ours, theirs))
    return measure.Row(
        "batch 8 decode bf16", rate, their_rate, "transformers", "tokens/s", rate / their_rate
    )


def prefill_row(
    repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, ids: list[int]
) -> measure.Row:
    ids_BT = torch.tensor([ids])

    @torch.inference_mode()
    def ours() -> None:
        model(ids_BT, model.new_cache(len(ids)), last_only=True)

    @torch.inference_mode()
    def theirs() -> None:
        peer(ids_BT, use_cache=True, logits_to_keep=1)

    seconds, their_seconds = measure.median_seconds(repeats, ours, theirs)
    rate, their_rate = len(ids) / seconds, len(ids) / their_seconds
    return measure.Row(
        "prefill 512 bf16", rate, their_rate, "transformers", "tokens/s", rate / their_rate
    )


if __name__ == "__main__":
    main()
