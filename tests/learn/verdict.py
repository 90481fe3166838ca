"""What the checker says of one part, or of one answer to a task."""

from qwen2lite.learn.check import examine


def verdict(name, part):
    return examine(**{name: part}).results[0]
