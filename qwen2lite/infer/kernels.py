r"""Triton kernels of a decode step of one text: five a layer, where the plain step sends thirty.

One row against a matrix is bound by how fast the matrix is read. What keeps a GPU from reading is the
end of each small kernel: the next one starts when the last program of the one before is done, a
microsecond or two in which memory rests. So everything small is done again in each program that
wants it (a norm of 896 numbers costs less than a kernel of its own), and what is left are the
products, with what leads up to them and what follows from them:

1. `qkv`: norm, three products, biases, rotary angles, and the new column of the cache
2. `attend_slice`: softmax over a slice of the columns
3. `mix_slices`: the slices together, output product, onto the stream; of many slices, `join` makes
   one beforehand
4. `gate_up`: norm, two products, SwiGLU's gate
5. `down`: product, onto the stream

Each asks for its weights first and only then waits for the kernel before it: with EARLY, a GPU of
Hopper's kind or later starts it meanwhile (programmatic dependent launch). Sums are float32, and
results are rounded where the model rounds them. WIDTH is the power of two that a row fits in.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

NOTHING = tl.constexpr(-1.0e30)
"""The largest score of a slice that sees no column: beside any true score it counts as nothing."""


@triton.jit
def qkv(
    x_ptr, norm_ptr, eps, position_ptr, cos_ptr, sin_ptr,
    q_weight, q_bias, k_weight, k_bias, v_weight, v_bias,
    q_ptr, keys_ptr, values_ptr, size,
    N: tl.constexpr, K: tl.constexpr, H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    PAIRS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program makes PAIRS rotary pairs of one head: queries, keys or values."""
    a_head: tl.constexpr = H // 2 // PAIRS
    head = tl.program_id(0) // a_head
    pair = tl.program_id(0) % a_head * PAIRS + tl.arange(0, PAIRS)
    position = tl.load(position_ptr)
    if head < N:
        weight, bias, own, out = q_weight, q_bias, head, q_ptr + head * H
    elif head < N + K:
        own = head - N
        weight, bias, out = k_weight, k_bias, keys_ptr + (own * size + position) * H
    else:
        own = head - N - K
        weight, bias, out = v_weight, v_bias, values_ptr + (own * size + position) * H
    row = own * H + pair
    upper, lower = _rows(weight, row, D, WIDTH), _rows(weight, row + H // 2, D, WIDTH)
    _when_ready(EARLY)
    x = _normed(x_ptr, norm_ptr, eps, D, WIDTH)
    first = _times(upper, x) + tl.load(bias + row).to(tl.float32)
    second = _times(lower, x) + tl.load(bias + row + H // 2).to(tl.float32)
    if head < N + K:
        cos = tl.load(cos_ptr + position * H + pair)
        sin = tl.load(sin_ptr + position * H + pair)
        turned = first * cos - second * sin
        second = second * cos + first * sin
        first = turned
    tl.store(out + pair, first)
    tl.store(out + pair + H // 2, second)


@triton.jit
def attend_slice(
    q_ptr, keys_ptr, values_ptr, visible_ptr, position_ptr, mixed_ptr, most_ptr, sum_ptr, size, scale,
    N: tl.constexpr, K: tl.constexpr, H: tl.constexpr, SLICES: tl.constexpr, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """Each program mixes one slice of the columns for one head, and says how much the slice counts."""
    head, part = tl.program_id(0), tl.program_id(1)
    seen = tl.load(position_ptr) + 1
    length = tl.cdiv(tl.cdiv(seen, SLICES), BLOCK) * BLOCK
    h = tl.arange(0, H)
    column = head // (N // K) * size.to(tl.int64)
    most, total = tl.full([], NOTHING, tl.float32), tl.full([], 0.0, tl.float32)
    mixed = tl.zeros([H], tl.float32)
    _when_ready(EARLY)
    q = tl.load(q_ptr + head * H + h).to(tl.float32) * scale
    for start in range(part * length, tl.minimum((part + 1) * length, seen), BLOCK):
        s = start + tl.arange(0, BLOCK)
        places = (column + s)[:, None] * H + h[None, :]
        inside = s < seen
        k = tl.load(keys_ptr + places, mask=inside[:, None], other=0.0).to(tl.float32)
        v = tl.load(values_ptr + places, mask=inside[:, None], other=0.0).to(tl.float32)
        shown = tl.load(visible_ptr + s, mask=inside, other=0) != 0
        score = tl.where(shown, tl.sum(k * q[None, :], axis=1), NOTHING)
        higher = tl.maximum(most, tl.max(score))
        p, before = tl.exp(score - higher), tl.exp(most - higher)
        total = total * before + tl.sum(p)
        mixed = mixed * before + tl.sum(p[:, None] * v, axis=0)
        most = higher
    tl.store(mixed_ptr + (part * N + head) * H + h, mixed)
    tl.store(most_ptr + part * N + head, most)
    tl.store(sum_ptr + part * N + head, total)


@triton.jit
def join(
    mixed_ptr, most_ptr, sum_ptr, whole_ptr,
    N: tl.constexpr, H: tl.constexpr, SLICES: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program puts all slices of a head together, for `mix_slices` as a single one."""
    head = tl.program_id(0)
    part, h = tl.arange(0, SLICES), tl.arange(0, H)
    _when_ready(EARLY)
    most = tl.load(most_ptr + part * N + head)
    counts = tl.exp(most - tl.max(most))
    total = tl.sum(tl.load(sum_ptr + part * N + head) * counts)
    mixed = tl.load(mixed_ptr + (part * N + head)[:, None] * H + h[None, :])
    tl.store(whole_ptr + head * H + h, tl.sum(mixed * counts[:, None], axis=0) / total)


@triton.jit
def mix_slices(
    x_ptr, mixed_ptr, most_ptr, sum_ptr, weight_ptr,
    N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, SLICES: tl.constexpr,
    ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program puts all slices together and adds ROWS rows of the output product to the stream."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    weight = _rows(weight_ptr, tl.minimum(row, D - 1), N * H, WIDTH)
    d = tl.arange(0, WIDTH)
    part = tl.arange(0, SLICES)[:, None] * N
    inside = (d < N * H)[None, :]
    _when_ready(EARLY)
    most = tl.load(most_ptr + part + d[None, :] // H, mask=inside, other=NOTHING)
    counts = tl.exp(most - tl.max(most, axis=0)[None, :])
    total = tl.load(sum_ptr + part + d[None, :] // H, mask=inside, other=1.0)
    mixed = tl.load(mixed_ptr + part * H + d[None, :], mask=inside, other=0.0)
    whole = tl.sum(mixed * counts, axis=0) / tl.sum(total * counts, axis=0)
    _add(x_ptr, row, _times(weight, whole.to(weight.dtype).to(tl.float32)), D)


@triton.jit
def gate_up(
    x_ptr, norm_ptr, eps, gate_weight, up_weight, wide_ptr,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program makes ROWS numbers of the MLP's inner vector."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    gates, ups = _rows(gate_weight, row, D, WIDTH), _rows(up_weight, row, D, WIDTH)
    _when_ready(EARLY)
    x = _normed(x_ptr, norm_ptr, eps, D, WIDTH)
    gate = _times(gates, x).to(gates.dtype).to(tl.float32)
    up = _times(ups, x).to(ups.dtype).to(tl.float32)
    opened = (gate * tl.sigmoid(gate)).to(gates.dtype).to(tl.float32)
    tl.store(wide_ptr + row, opened * up)


@triton.jit
def down(
    x_ptr, wide_ptr, weight_ptr,
    D: tl.constexpr, F: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program adds ROWS rows of the MLP's last product to the stream."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    weight = _rows(weight_ptr, tl.minimum(row, D - 1), F, WIDTH)
    f = tl.arange(0, WIDTH)
    _when_ready(EARLY)
    wide = tl.load(wide_ptr + f, mask=f < F, other=0.0).to(tl.float32)
    _add(x_ptr, row, _times(weight, wide), D)


@triton.jit
def output_layer(
    x_ptr, norm_ptr, eps, weight_ptr, logits_ptr, V,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program scores ROWS tokens: the last norm and the output layer."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    weight = _rows(weight_ptr, tl.minimum(row, V - 1), D, WIDTH)
    _when_ready(EARLY)
    x = _normed(x_ptr, norm_ptr, eps, D, WIDTH)
    tl.store(logits_ptr + row, _times(weight, x), mask=row < V)


@triton.jit
def _when_ready(EARLY: tl.constexpr):
    """Lets the next kernel start, and goes on when the one before has written everything."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def _rows(weight_ptr, row, D: tl.constexpr, WIDTH: tl.constexpr):
    """Some rows of a matrix of D columns."""
    d = tl.arange(0, WIDTH)
    places = weight_ptr + row.to(tl.int64)[:, None] * D + d[None, :]
    return tl.load(places, mask=(d < D)[None, :], other=0.0)


@triton.jit
def _times(weight, x):
    return tl.sum(weight.to(tl.float32) * x[None, :], axis=1)


@triton.jit
def _normed(x_ptr, weight_ptr, eps, D: tl.constexpr, WIDTH: tl.constexpr):
    """RMSNorm of the row, in float32."""
    d = tl.arange(0, WIDTH)
    weight = tl.load(weight_ptr + d, mask=d < D, other=0.0)
    x = tl.load(x_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    scaled = (x * tl.rsqrt(tl.sum(x * x) / D + eps)).to(weight.dtype).to(tl.float32)
    return (scaled * weight.to(tl.float32)).to(weight.dtype).to(tl.float32)


@triton.jit
def _add(x_ptr, row, update, D: tl.constexpr):
    """Adds to the stream, rounding the update first, as the model does."""
    x = tl.load(x_ptr + row, mask=row < D, other=0.0)
    total = x.to(tl.float32) + update.to(x.dtype).to(tl.float32)
    tl.store(x_ptr + row, total, mask=row < D)
