"""Files: where models come from, what stands in them, and how one is written.

sources, fetch        names of models, and a download that survives an interruption
hub, package_index    the two places that models are fetched from
checkpoint            one view of a checkpoint, whatever the file
hf                    a folder with config.json and safetensors
gguf, dequantise      a .gguf file, and its blocks of small integers as numbers
gguf_checkpoint       such a file seen as a checkpoint
published             tensors that have other names in files than in a model
export                a model written as a folder that other programs read
"""
