"""The real 0.5B in float32 against transformers, which dequantises the same file by itself."""

import pytest
import torch
import transformers

from qwen2lite.infer.generate import generate_ids
from qwen2lite.text.chat import encode_chat
from qwen2lite.weights.sources import resolve
from tests.conftest import REAL_MODEL

PROMPTS = {
    "english": "The history of the printing press begins in the city of",
    "chinese": "中国的首都是北京,它有三千多年的历史。",
    "code": "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "digits": "3.14159265358979, 2.71828, 1234567890 and 42 are",
    "emoji": "I ❤️ 🍕 and 🎉, but 👩‍👩‍👧‍👦 is",
}

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def reference():
    path = resolve(REAL_MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.eval()


@pytest.mark.parametrize("language", PROMPTS)
def test_logits_equal_transformers(language, real_model, real_tokenizer, reference):
    ids_BT = torch.tensor([real_tokenizer.encode(PROMPTS[language])])
    with torch.inference_mode():
        ours, theirs = real_model(ids_BT), reference(ids_BT).logits
    difference = (ours - theirs).abs().max()
    print(f"{language}: max difference {difference:.1e} of logits up to {theirs.abs().max():.0f}")
    assert difference <= 2e-4
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_64_greedy_tokens_equal_transformers(real_model, real_tokenizer, reference):
    question = [{"role": "user", "content": "Write a Python function that reverses a string."}]
    prompt = encode_chat(real_tokenizer, question)
    ours = list(generate_ids(real_model, prompt, max_new_tokens=64))
    theirs = reference.generate(
        torch.tensor([prompt]),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
        repetition_penalty=1.0,
    )
    assert ours == theirs[0, len(prompt) :].tolist()
    assert "def " in real_tokenizer.decode(ours)
