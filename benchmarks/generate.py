"""Decoding and prefill of the real 0.5B in bfloat16, beside transformers in the same run.

Both sides hold the same weights: transformers' model gets the tensors that ours loaded. `decode` is the
time from the first token to the last, after a prompt of 32 tokens; `prefill` scores only the last
position.
"""

import measure
import torch
import transformers

from qwen2lite import Qwen2
from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.generate import generate_ids
from qwen2lite.weights.sources import default_model

THREADS, PROMPT, TOKENS = 2, 32, 32


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    model = Qwen2.from_pretrained(default_model(), dtype=torch.bfloat16, device="cpu")
    peer = same_weights(model)
    ids = torch.randint(0, 100_000, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [
        *decode_rows(flags.repeats, model, peer, ids),
        prefill_row(flags.repeats, model, peer, ids),
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


def decode_rows(repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, ids: list[int]):
    prompt_BT = torch.tensor([ids[:PROMPT]])

    def ours() -> None:
        assert len(list(generate_ids(model, ids[:PROMPT], TOKENS))) == TOKENS

    def ours_first() -> None:
        next(generate_ids(model, ids[:PROMPT], TOKENS))

    def theirs(count: int) -> None:
        limits = {"max_new_tokens": count, "min_new_tokens": count}
        peer.generate(prompt_BT, do_sample=False, pad_token_id=0, **limits)

    def theirs_under_our_flags(count: int) -> None:
        with fastest_products(model.output_weight_VD, rows=1):
            theirs(count)

    sides = (
        ours, ours_first, lambda: theirs(TOKENS), lambda: theirs(1),
        lambda: theirs_under_our_flags(TOKENS), lambda: theirs_under_our_flags(1),
    )  # fmt: skip
    whole, first, their_whole, their_first, flagged, flagged_first = measure.median_seconds(
        repeats, *sides
    )
    rate = (TOKENS - 1) / (whole - first)
    peers = {
        "decode bf16": ("transformers generate", their_whole - their_first),
        "decode bf16, both under our flags": ("transformers, our flags", flagged - flagged_first),
    }
    for work, (name, seconds) in peers.items():
        their_rate = (TOKENS - 1) / seconds
        yield measure.Row(work, rate, their_rate, name, "tokens/s", rate / their_rate)


def prefill_row(repeats: int, model: Qwen2, peer: transformers.PreTrainedModel, ids: list[int]):
    ids_BT = torch.tensor([ids])

    @torch.inference_mode()
    def ours() -> None:
        with fastest_products(model.output_weight_VD, rows=len(ids)):
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
