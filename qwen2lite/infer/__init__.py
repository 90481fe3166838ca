"""Using a model: the next token, many texts at once, and forms that generate faster.

sample                from a score for each token to one of them
generate              the prompt once, then one token at a time
batch, texts          many prompts at once, and what is known of each
padding               texts of different lengths in one tensor
remember              what was read for the last text isn't read again
speculate             the same model in fewer bits writes ahead, and the model checks

load                  a model in the form that generates fastest
packed, packed_layers fewer and larger products on a CPU
cpu, products         which of PyTorch's products are fastest here, found out by trying
quantize              weights in 8 or 4 bits
quantized_checkpoint  such a model in a file of the cache
quantized_products    and its products on a CPU
compile               decode steps of fixed shape: compiled, on a GPU one CUDA graph
fused, kernels        one text on a GPU in five kernels a layer
ahead                 on a GPU the next step is sent before this step's token is seen
around                what models around a model have in common

clock, roofline       how long an answer took, and what this machine could do at most
"""
