"""How good a model is: surprise at a text, answers that can be checked, keys found in long texts."""
