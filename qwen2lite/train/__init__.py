"""Training, from a corpus to a checkpoint.

corpus                documents: the standard library's texts, files, data sets, weighted mixtures
world, story, tasks   the small world: facts to learn, stories, texts that must be looked back in
words, pieces         how two texts are compared: words, and the pieces of a few words they share
quality, classifier   what is wrong with a document, by named rules and by examples
language              which language a document is written in
dedup                 documents told twice: the same, and nearly the same
decontaminate         no document that gives away an evaluation
damage                documents spoilt on purpose, to see whether the filters notice
mixing                how a mixture is chosen: shares from sizes, or a law fitted to small runs
tokens                a corpus as one long row of ids in a file
loader                from that file to batches: shuffled, shared by ranks, resumable

settings              what a run is told, from a TOML file
recipe, prepare       a run from that file, and the token files that it reads
loss, gradients       what is made small, and its gradient over several batches and cores
by_hand, products     small gradients written out, and the faster library's products: for speed on a CPU
optim, schedule       the step that the gradient becomes, and how long it is when
loop                  batch, gradient, clip, step
metrics               what a run shows while it goes on
checkpoint, folder    what a run leaves behind: atomic checkpoints, and the model at the end

parallel, processes   many processes: how one joins, and what the loop asks of them; DDP
shards                each process holds a share of every weight: FSDP, and its checkpoints
idle, recompute       experts without tokens among many processes; layers computed twice
cost, plan            parameters, arithmetic and bytes, counted; whether a run fits, and its days

upcycle               a dense model becomes a mixture of experts
"""
