"""After pre-training: a model that continues texts becomes one that answers, and answers well.

questions             the small world's people, asked for in conversations
sft                   conversations of which only the answers are learnt
pairs                 two answers to a question, and what is wrong with one of them
reward                a model that says in one number how good an answer is
dpo, online           the better answer made likelier: of given pairs, of a model's own
merge                 an optimizer that keeps what SFT did
"""
