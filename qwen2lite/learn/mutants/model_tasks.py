"""Wrong answers to the counting tasks of the exercise 31_model."""

import dataclasses
from collections.abc import Callable
from typing import Any

from qwen2lite.model.config import Qwen2Config
from qwen2lite.train.cost import parameters

REGULAR_TOKENS = 151_646
"""What Qwen2's tokenizer has, control tokens included; the matrices have more rows."""


def always_one(config: Qwen2Config) -> int:
    """One matrix is counted. Only where the embeddings are tied it serves at both ends; else there are
    two of this size (vllm-fit #27 took every model for tied)."""
    return config.vocab_size * config.hidden_size


def always_two(config: Qwen2Config) -> int:
    """Two matrices are counted. Where tie_word_embeddings is true, one serves at both ends
    (Megatron-DeepSpeed #99 counted it twice)."""
    return 2 * config.vocab_size * config.hidden_size


def rows_of_the_tokenizer(config: Qwen2Config) -> int:
    """The rows are counted in the tokenizer. The matrix has more of them than there are tokens, and
    vocab_size says how many (the Qwen repository's most repeated question: #29, #147, #466)."""
    rows = min(config.vocab_size, REGULAR_TOKENS)
    return rows * config.hidden_size * (1 if config.tie_word_embeddings else 2)


def _layers(config: Qwen2Config) -> tuple[int, int]:
    """How many layers are dense, and how many have experts."""
    sparse = sum(config.is_sparse(layer) for layer in range(config.num_hidden_layers))
    return config.num_hidden_layers - sparse, sparse


def as_many_kv_heads(config: Qwen2Config, active: bool = False) -> int:
    """k_proj and v_proj are counted as wide as q_proj. They have num_key_value_heads heads (meta-llama
    #1111 found 78 billion in a 70B that way; whittle #123)."""
    more = (config.num_attention_heads - config.num_key_value_heads) * config.head_dim
    size = config.hidden_size + 1
    return parameters(config, active) + 2 * more * size * config.num_hidden_layers


def biases_forgotten(config: Qwen2Config, active: bool = False) -> int:
    """The biases of queries, keys and values are missing: (N + 2 K) · H numbers a layer."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    return parameters(config, active) - heads * config.head_dim * config.num_hidden_layers


def bias_of_the_output(config: Qwen2Config, active: bool = False) -> int:
    """o_proj is counted with a bias. Only queries, keys and values have one."""
    return parameters(config, active) + config.hidden_size * config.num_hidden_layers


def last_norm_forgotten(config: Qwen2Config, active: bool = False) -> int:
    """The norm after the last layer is missing: D numbers, some hundreds or thousands."""
    return parameters(config, active) - config.hidden_size


def two_matrices_an_mlp(config: Qwen2Config, active: bool = False) -> int:
    """An MLP is counted with two matrices. SwiGLU has three: gate, up and down."""
    dense, _ = _layers(config)
    missing = dense * config.intermediate_size
    return parameters(config, active) - config.hidden_size * missing


def one_dense_mlp(config: Qwen2Config, active: bool = False) -> int:
    """Every layer is counted with one dense MLP. Where the config has experts, there are num_experts
    small ones and a shared one in its place (vllm-fit #27 found 13 billion in a 47B)."""
    return parameters(dataclasses.replace(config, num_experts=0))


def shared_expert_forgotten(config: Qwen2Config, active: bool = False) -> int:
    """The shared expert is missing. Every token goes through it: three matrices of D by
    shared_expert_intermediate_size."""
    _, sparse = _layers(config)
    shared = 3 * config.hidden_size * config.shared_expert_intermediate_size
    return parameters(config, active) - sparse * shared


def router_forgotten(config: Qwen2Config, active: bool = False) -> int:
    """The router and the shared expert's gate are missing: D · E and D numbers a layer."""
    _, sparse = _layers(config)
    return parameters(config, active) - sparse * config.hidden_size * (config.num_experts + 1)


def experts_of_full_width(config: Qwen2Config, active: bool = False) -> int:
    """Each expert is counted as wide as a dense MLP. An expert has moe_intermediate_size
    (Linear-MoE #17)."""
    wide = dataclasses.replace(config, moe_intermediate_size=config.intermediate_size)
    return parameters(wide, active)


def all_experts_work(config: Qwen2Config, active: bool = False) -> int:
    """All experts are counted as active. A token goes through num_experts_per_tok of them."""
    return parameters(config)


def router_for_the_chosen(config: Qwen2Config, active: bool = False) -> int:
    """Active, the router is counted for the chosen experts only. It scores all of them for each token:
    D · E numbers work in any case."""
    _, sparse = _layers(config)
    idle = config.num_experts - config.num_experts_per_tok if active else 0
    return parameters(config, active) - sparse * config.hidden_size * idle


def heads_that_fill_the_stream(config: Qwen2Config, active: bool = False) -> int:
    """A head is taken for hidden_size / num_attention_heads numbers. It has `head_dim`, which a config
    may choose freely."""
    usual = config.hidden_size // config.num_attention_heads
    return parameters(dataclasses.replace(config, head_dim=usual), active)


def _cache_bytes(config: Qwen2Config) -> int:
    return 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim


def weights_forgotten(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """The weights are forgotten: they lie in the same memory, 2 bytes each."""
    return memory // _cache_bytes(config)


def keys_alone(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """Only keys are kept. The cache holds keys and values."""
    return max(0, memory - 2 * parameter_count) * 2 // _cache_bytes(config)


def numbers_for_bytes(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """Weights are counted as one byte each. In bfloat16 a number has two."""
    return max(0, memory - parameter_count) // _cache_bytes(config)


def of_the_query_heads(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """Keys of N heads are kept. There are num_key_value_heads of them: that is what they are shared
    for (torchtune #38)."""
    group = config.num_attention_heads // config.num_key_value_heads
    return max(0, memory - 2 * parameter_count) // (_cache_bytes(config) * group)


def width_by_division(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """A head is taken for hidden_size / num_attention_heads numbers. It has `head_dim`, which a config
    may choose freely."""
    width = config.hidden_size // config.num_attention_heads
    token = _cache_bytes(config) // config.head_dim * width
    return max(0, memory - 2 * parameter_count) // token


def below_zero(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """Where not even the weights fit, this is a negative number of tokens. Then it is none."""
    return (memory - 2 * parameter_count) // _cache_bytes(config)


def cut_towards_zero(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """`int` cuts off what stands behind the point, so it says 0 if a few bytes are missing, but a
    negative number if many are. Where the weights don't fit, it is none: `max(0, …)`."""
    return int((memory - 2 * parameter_count) / _cache_bytes(config))


def rounded_up(config: Qwen2Config, parameter_count: int, memory: int) -> int:
    """A token that fits only in part is counted. It has to fit whole: `//` rounds down."""
    return -(-max(0, memory - 2 * parameter_count) // _cache_bytes(config))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "embedding_parameters": (always_one, always_two, rows_of_the_tokenizer),
    "count_parameters": (
        as_many_kv_heads,
        biases_forgotten,
        bias_of_the_output,
        last_norm_forgotten,
        two_matrices_an_mlp,
        one_dense_mlp,
        shared_expert_forgotten,
        router_forgotten,
        experts_of_full_width,
        all_experts_work,
        router_for_the_chosen,
        heads_that_fill_the_stream,
    ),
    "tokens_that_fit": (
        weights_forgotten,
        keys_alone,
        numbers_for_bytes,
        of_the_query_heads,
        width_by_division,
        below_zero,
        cut_towards_zero,
        rounded_up,
    ),
}
"""The wrong versions of each task."""
