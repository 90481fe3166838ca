"""Has llama.cpp read what `export` writes: small models, dense and with experts, logits beside ours.

pip install llama-cpp-python sentencepiece
python tools/try_llama_cpp.py PATH/TO/llama.cpp/convert_hf_to_gguf.py

The converter is no package: it lies in llama.cpp's repository, and in the sources of llama-cpp-python.
The tokenizer is the fetched model's, because the converter refuses those that it doesn't know.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qwen2lite import Qwen2, Qwen2Config, Qwen2Tokenizer
from qwen2lite.weights.export import export

MODEL = "qwen2.5-coder-0.5b-instruct-gguf"
TEXT = "The capital of France is Paris: 12, 345.\n\n  It's <|im_end|>\n"
KINDS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {},
    "six experts": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 96,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("converter", type=Path, help="convert_hf_to_gguf.py")
    converter = parser.parse_args().converter
    tokenizer = Qwen2Tokenizer.from_pretrained(MODEL)
    ids = tokenizer.encode(TEXT)
    for kind, changes in KINDS.items():
        model = small(tokenizer, changes)
        with torch.inference_mode():
            ours = model(torch.tensor([ids]))[0]
        with tempfile.TemporaryDirectory() as place:
            folder = export(model, Path(place) / "model", tokenizer, max_shard_bytes=20_000_000)
            theirs = through_llama_cpp(folder, converter, ids)
        off = (ours - theirs).abs().max().item()
        print(f"{kind:12} logits differ by at most {off:.1e}; they spread by {ours.std():.1f}")


def small(tokenizer: Qwen2Tokenizer, changes: dict[str, Any]) -> Qwen2:
    """Two layers with the whole vocabulary, and biases and norms that aren't trivial."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=50_000.0,
        rms_norm_eps=1e-5,
        initializer_range=0.2,
        eos_token_id=tokenizer.special_tokens["<|im_end|>"],
        **changes,
    )
    model = Qwen2(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model


def through_llama_cpp(folder: Path, converter: Path, ids: list[int]) -> torch.Tensor:
    """Logits of llama.cpp, [T, V], in float32 throughout; its tokenizer has to give the same ids."""
    from llama_cpp import Llama

    file = folder.with_suffix(".gguf")
    command = [sys.executable, converter, folder, "--outtype", "f32", "--outfile", file]
    subprocess.run(command, check=True, capture_output=True)
    f32 = 0  # ggml's number of the type; the cache is float16 otherwise, and logits are 7e-3 off
    llama = Llama(str(file), n_ctx=64, logits_all=True, verbose=False, type_k=f32, type_v=f32)
    assert llama.tokenize(TEXT.encode(), add_bos=False, special=True) == ids
    llama.eval(ids)
    return torch.tensor(np.array(llama.scores[: len(ids)]))


if __name__ == "__main__":
    main()
