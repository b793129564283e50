"""Training of this node's own policy on groups of scored completions, in one process.

- `advantage.py`: rewards of one group → group-relative advantages, by the rule's name
- `batch.py`: `Sample`s → right-padded micro-batches under a padded-token budget
- `logprob.py`: per-token log-probabilities and entropies, LM head at completion positions only
- `head.py`: those from hidden states, by tiles of the vocabulary
- `prefix.py`: hidden states of completions, each distinct prompt computed once
- `objectives/`: what is minimised, one small file per paper and one table of names
- `loss.py`: an objective's terms averaged over own and peers' completions; KL to a reference
- `foreign.py`: peers' completions in the loss under the hybrid rule
- `unverified.py`: which of their tokens are left out, as only the answer was verified
- `alignment.py`: whether peers' completions pull where this node's own do
- `entropy.py`: EPO's entropy bonus and corridor
- `reference.py`: the frozen policy of the KL term
- `optimizer.py`: AdamW on float32 master weights; skips a step that is not finite
- `precision.py`: bfloat16 autocast of the forward pass, on a GPU
- `eight_bit.py`: the same with moments of 8 bits, by torchao
- `lora.py`: adapters beside frozen weights
- `trainer.py`: `Trainer.step`, one round's update and its report
- `measured.py`: what one pass over the samples adds up
- `checkpoint.py`: atomic, hash-checked checkpoints on disk, and the state of every generator
- `footprint.py`: the memory a node will need, before it starts
- `weights.py`: a model's tensors by name, and whether two sets are of one model
- `policy.py`: loads model and tokenizer; `hub.py`: whether the hub answers

Sources: SAPO (arXiv 2509.08721), GRPO (arXiv 2402.03300), DAPO (arXiv 2503.14476).

Axes of tensors, in every docstring of this package:

- `B`: sequences of one micro-batch (prompt + completion + padding)
- `T`: token positions of one padded micro-batch
- `N`: completion tokens of one micro-batch, flattened row by row, padding left out
- `G`: completions of one question
- `H`: hidden size
- `V`: vocabulary
"""
