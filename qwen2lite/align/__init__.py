"""After pre-training: a model that continues texts becomes one that answers.

questions             the small world's people, asked for in conversations
sft                   conversations of which only the answers are learnt
"""
