"""Training, from a corpus to a checkpoint.

world, story, tasks   the small world: facts to learn, stories, texts that must be looked back in
tokens                a corpus as one long row of ids in a file
loader                from that file to batches: shuffled, shared by ranks, resumable
"""
