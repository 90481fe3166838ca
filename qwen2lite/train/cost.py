r"""What a model costs in training: parameters, arithmetic, and bytes, counted from its config.

Letters are those of the package: V vocabulary, D hidden size, L layers, N query heads, K key/value
heads, H head size, F width of an MLP; E experts of which a token uses k, $F_E$ their width and $F_S$
that of the shared one. X tokens are on a GPU at once, in sequences of T.
"""

from qwen2lite.model.config import Qwen2Config
from qwen2lite.train.loss import CHUNK_NUMBERS

BYTES = {"float32": 4, "bfloat16": 2}
"""Of a number in the matrix products. Weights, gradients and AdamW's means have 4 in any case."""


def layer_parameters(config: Qwen2Config, layer: int, active: bool = False) -> int:
    r"""Parameters of one layer.

    Attention: queries and output $2 D N H$, keys and values $2 D K H$, biases $(N + 2 K) H$; two norms
    $2 D$; then $3 D F$ for a dense MLP, or for experts $3 D (E F_E + F_S)$, the router $D E$ and the
    shared expert's gate D.

    Args:
        config: the model's shape.
        layer: from 0.
        active: only what one token uses, k experts in place of E.
    """
    size, width = config.hidden_size, config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    attention = 2 * size * (width + kv_width) + width + 2 * kv_width
    if not config.is_sparse(layer):
        return attention + 2 * size + 3 * size * config.intermediate_size
    experts = config.num_experts_per_tok if active else config.num_experts
    widths = experts * config.moe_intermediate_size + config.shared_expert_intermediate_size
    return attention + 2 * size + 3 * size * widths + size * (config.num_experts + 1)


def parameters(config: Qwen2Config, active: bool = False) -> int:
    r"""Parameters of a model: $V D$, its layers, the last norm D, and $V D$ again if it isn't tied."""
    matrices = 1 if config.tie_word_embeddings else 2
    layers = (layer_parameters(config, n, active) for n in range(config.num_hidden_layers))
    return sum(layers) + config.hidden_size * (matrices * config.vocab_size + 1)


def multiplied(config: Qwen2Config, active: bool = False) -> int:
    r"""Parameters that tokens are multiplied with: all but an embedding that is only looked up.

    The output layer is one of them, also when it is tied to the embedding.
    """
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return parameters(config, active) - looked_up


def flops_per_token(config: Qwen2Config, sequence_length: int) -> float:
    r"""Floating-point operations that training needs for one token.

    $6 P_a + 6 L N H T$. $P_a$ are the parameters that a token is multiplied with, of E experts only
    k: a multiplication and an addition each, in the forward pass once and in the backward pass twice,
    for the gradient of the input and of the weight. Attention multiplies each query with T/2 keys on
    average and weighs as many values: $2 \cdot 2 N H \cdot T/2$ a layer, three times. Many count the
    T/2 hidden keys as well, which makes the second term twice as large and an MFU look better.

    Args:
        config: the model's shape.
        sequence_length: T.

    Source: arXiv 2204.02311, appendix B, with attention as a causal model needs it.
    """
    width = config.num_attention_heads * config.head_dim
    return (
        6.0 * multiplied(config, active=True)
        + 6.0 * config.num_hidden_layers * width * sequence_length
    )


def prefill_flops(config: Qwen2Config, length: int) -> float:
    """Operations of reading a prompt of so many tokens, of which only the last position is scored.

    A third of training's, without the output layer for all other positions.
    """
    unscored = 2.0 * (length - 1) * config.vocab_size * config.hidden_size
    return length * flops_per_token(config, length) / 3 - unscored


def mfu(
    config: Qwen2Config, sequence_length: int, tokens_per_second: float, peak_flops: float
) -> float:
    r"""Model FLOPs utilisation: the share of the hardware's peak that the model's arithmetic took.

    $\text{tokens/s} \cdot \text{FLOPs per token} / \text{peak}$. Only what the model needs is counted:
    a layer that is computed twice to save memory counts once, so activation checkpointing lowers it.

    Args:
        config: the model's shape.
        sequence_length: T.
        tokens_per_second: of all GPUs.
        peak_flops: of all GPUs, for dense products in the format that was used.

    Source: arXiv 2204.02311, appendix B.
    """
    return tokens_per_second * flops_per_token(config, sequence_length) / peak_flops


def layer_activations(config: Qwen2Config, layer: int, precision: str) -> int:
    r"""Bytes that a layer keeps of each token for its backward pass.

    With b bytes a number in products and 4 in the stream:

    - both norms keep their input and what it was divided to: $4 \cdot 4 D$;
    - a product keeps its input. In float32 q, k and v share one, and so do gate and up; autocast
      makes each a copy of its own: $b D (c_1 + c_2)$ with 1 + 1, or 3 + 2, or 3 + 4 beside a router;
    - attention keeps queries and result, keys and values: $b (2 N H + 2 K H)$, and N sums in float32;
    - an MLP keeps gate, silu(gate), up and their product: $4 b F$;
    - experts keep $4 b F_E$ for each of the k, $4 b F_S$ for the shared one and its result $b D$; and
      for each of the k the input, the result and the share of it that is added: $b D (c + 1) + 4 D$,
      c = 1 in float32 and 2 with autocast.

    Scores are never kept: the fused kernel computes them again.

    Args:
        config: the model's shape.
        layer: from 0.
        precision: of the products.
    """
    b, size, autocast = BYTES[precision], config.hidden_size, precision != "float32"
    width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    sparse = config.is_sparse(layer)
    inputs = (7 if sparse else 5) if autocast else 2
    kept = 16 * size + inputs * b * size + b * 2 * (width + kv_width)
    kept += 4 * (config.num_attention_heads + 2)
    if not sparse:
        return kept + 4 * b * config.intermediate_size
    copies = 2 if autocast else 1
    expert = 4 * b * config.moe_intermediate_size + (copies + 1) * b * size + 4 * size
    shared = 4 * b * config.shared_expert_intermediate_size + b * size
    return kept + config.num_experts_per_tok * expert + shared


def activation_bytes(
    config: Qwen2Config, tokens: int, precision: str, activation_checkpointing: bool
) -> int:
    r"""Bytes that are kept from the forward to the backward pass, on one GPU.

    The sum of `layer_activations`, times X, and $4 \cdot 2 D + b D$ a token for the last norm and the
    gradient that the loss has ready. With activation checkpointing a layer keeps only its input, $4 D$.

    Args:
        config: the model's shape.
        tokens: X.
        precision: of the products.
        activation_checkpointing: see `recompute_layers`.
    """
    layers = range(config.num_hidden_layers)
    if activation_checkpointing:
        kept = 4 * config.hidden_size * len(layers)
    else:
        kept = sum(layer_activations(config, layer, precision) for layer in layers)
    return tokens * (kept + (8 + BYTES[precision]) * config.hidden_size)


def logits_bytes(config: Qwen2Config, tokens: int, precision: str, chunk: int = 0) -> int:
    r"""Bytes of the output layer on one GPU: $c R V$ for scores, and $4 V D$ for its gradient.

    All X rows of scores at once would be the largest tensor of a run. The loss takes R at a time, so
    that R V is at most `chunk`. A score is there as product and as logarithm of its probability, c = 8
    bytes; from the second piece on the one before still is as well, c = 12, or 14 with its copy in
    bfloat16.

    Args:
        config: the model's shape.
        tokens: X.
        precision: of the products.
        chunk: scores that are held at a time; 0 is what the loss holds on a GPU.
    """
    rows = max(1, (chunk or CHUNK_NUMBERS["cuda"]) // config.vocab_size)
    each = 8 if tokens <= rows else 12 if precision == "float32" else 14
    scores = each * min(tokens, rows) * config.vocab_size
    return scores + 4 * config.vocab_size * config.hidden_size


def layer_bytes(
    config: Qwen2Config, tokens: int, precision: str, activation_checkpointing: bool
) -> int:
    r"""Bytes of the one layer that is on its way back, on one GPU.

    Two gradients of its MLP's width, $2 b F$ a token ($2 b (k F_E + F_S)$ with experts), and $4 V D$
    where the output layer's gradient waits for the embedding's, because they are tied. With activation
    checkpointing also all that the layer keeps, which is computed again just now. That is after the
    scores are gone: of these bytes and `logits_bytes` only the larger count.

    Arguments are those of `activation_bytes`.
    """
    sparse = [config.is_sparse(layer) for layer in range(config.num_hidden_layers)]
    width = 0 if all(sparse) else config.intermediate_size
    if any(sparse):
        routed = config.num_experts_per_tok * config.moe_intermediate_size
        width = max(width, routed + config.shared_expert_intermediate_size)
    work = 2 * BYTES[precision] * width
    if activation_checkpointing:
        work += max(layer_activations(config, layer, precision) for layer in range(len(sparse)))
    waiting = 4 * config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
    return tokens * work + waiting


def copies_bytes(config: Qwen2Config, precision: str, sharded: bool) -> int:
    r"""Bytes of weights that are there a second time, on one GPU.

    Whole models keep a copy of each multiplied weight in the products' format until its backward pass:
    $2 P$ in bfloat16. Sharded ones gather. With $P_0$ parameters outside of the layers and $P_1$ in the
    largest layer: $4 P_0$ for the whole pass, and for two layers their weights, $2 b P_1$, because one
    travels while the other computes, and for one its gradient twice, $(b + 4) P_1$, as it was made and
    in float32 for the average.

    Args:
        config: the model's shape.
        precision: of the products.
        sharded: with FSDP.
    """
    copied = precision != "float32"
    if not sharded:
        return 2 * multiplied(config) if copied else 0
    layers = [layer_parameters(config, layer) for layer in range(config.num_hidden_layers)]
    outside = 4 * (parameters(config) - sum(layers))
    output = 2 * config.vocab_size * config.hidden_size if copied else 0
    return outside + output + (3 * BYTES[precision] + 4) * max(layers)
