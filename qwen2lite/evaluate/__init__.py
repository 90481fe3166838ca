"""How good a model is: surprise at a text, answers that can be checked, keys found in long texts.

perplexity, ngram     surprise at a text, and what counting alone makes of it
exact_match           does it continue as it should?
choice, reader        multiple choice, by likelihood
generated             answers that it writes, and the number in them
uncertainty           how sure a score is, and which of two models is better
contamination         had it seen the questions?
passkey, many_keys    keys hidden in long texts
finished, json_lines  measurements and questions in files
"""
