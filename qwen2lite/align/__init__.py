"""After pre-training: a model that continues texts becomes one that answers, and answers well.

questions             the small world's people, asked for in conversations
sft                   conversations of which only the answers are learnt
pairs                 two answers to a question, and what is wrong with one of them
reward                a model that says in one number how good an answer is
logp                  how likely a model finds an answer
dpo                   the better answer of a pair made likelier
rollout, online       a model's own answers, and pairs of them
ppo_loss, ppo         its own answers judged token by token, with a value model
update                one step of a model, and none where its loss is no number
merge                 an optimizer that keeps what SFT did
"""
