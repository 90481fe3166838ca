"""Encoding needs no torch: a tokenizer starts in a fraction of torch's import time."""

import subprocess
import sys


def test_the_tokenizer_does_not_load_torch():
    code = "import sys, qwen2lite.text.chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
