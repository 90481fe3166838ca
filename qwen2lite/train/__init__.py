"""Training, from a corpus to a checkpoint.

corpus                documents: the standard library's texts, files, data sets, weighted mixtures
words, pieces         how two texts are compared: words, and the pieces of a few words they share
quality               what is wrong with a document, rule by rule
decontaminate         no document that gives away an evaluation
damage                documents spoilt on purpose, to see whether the filters notice
world, story, tasks   the small world: facts to learn, stories, texts that must be looked back in
tokens                a corpus as one long row of ids in a file
loader                from that file to batches: shuffled, shared by ranks, resumable
"""
