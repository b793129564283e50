"""Verifiable questions and their scoring.

- `taskset.py`: what a node asks questions from; digests, the held-out split
- `source.py`: what a source of questions is
- `gym.py`: the allow-list of reasoning-gym data sets
- `options.py`: which options of a data set a manifest may set, and within which bounds
- `soundness.py`: which generated questions are kept
- `rows.py`: questions from a JSON-lines file or a Hugging Face data set
- `answer.py`: where the answer stands in a completion
- `equations.py`: false equations in a text, read literally
- `compare.py`: when an answer is right; runs in the scorer process only
- `scorer.py`: the node's side of the scorer process
- `scoring.py`: strangers' texts scored beside the round loop
- `scorer_process.py`: the scorer process itself: stdlib only, locked down before the first text
- `sandbox.py`: what it gives up: limits, name space, Landlock, system calls

Sources: reasoning-gym 0.1.25 (github.com/open-thought/reasoning-gym), whose generators are used
and whose scorers are not: they give partial credit, and some evaluate the text they score.
"""
