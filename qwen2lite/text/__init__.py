"""Text to token ids and back.

pretokenize           one spelling for each character, then cuts that no merge may cross
bpe                   byte-level BPE: training, encoding, decoding
vocabulary            reading a vocabulary from its files
tokenizer             Qwen2's tokenizer
chat                  a conversation as one string
"""
