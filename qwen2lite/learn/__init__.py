"""The course's tools: check what you built, keep it, and run the model on it."""

from qwen2lite.learn.check import check
from qwen2lite.learn.display import show_source
from qwen2lite.learn.doctor import doctor
from qwen2lite.learn.keep import keep, my_parts, receipt, with_parts

__all__ = ["check", "doctor", "keep", "my_parts", "receipt", "show_source", "with_parts"]
