"""The network.

config, long_config   what makes one Qwen2 differ from another, and what a config says of long texts
parts                 the bill of materials: any part can be another
norm, rope, mlp       RMSNorm, rotary positions, SwiGLU
attention             grouped-query attention, as its formula and through the fused kernel
qwen2                 one layer, the stack, the language model
cache                 keys and values of the tokens already read
device, loading       where a model runs and in which format; from a checkpoint to its parameters

yarn, dca             texts longer than the model was trained on
pieces                attention to a piece of the keys, and the sum of such pieces
moe, balance          experts, and whether they share the work

tiles, onednn         for speed on a CPU: attention as ordinary products, and whose products
grouped               for speed on a GPU: all experts in two calls
"""
