"""Many nodes in one process, without a network: what sharing is worth, measured and repeatable.

- `settings.py`: regimes and arms, fixed before the runs, and which runs make the table
- `starts.py`: one warm start per seed, trained from scratch, kept in a cache
- `world.py`: what all nodes of a run have in common: tasks, tokenizer, held-out questions, scores
- `simulation.py`: the rounds of one run, with the node's own modules
- `churn.py`: what it costs when half of the nodes are replaced again and again
- `runs.py`: a run on disk: configuration, versions, rows; finished runs are not done again
- `measures.py`: what is measured, from a run's rows alone
- `table.py`: all runs → `summary.json` and `sapo.md`
- `plots.py`: all runs → pictures
- `worked.py`, `worked.toml`: tasks whose answers stand in a longer text, and warm starts for them
- `attacks.py`: poisoners, plain and adaptive; `poisoned.py`: the rounds of a swarm that has some
- `poison_table.py`: their runs → figures beside their targets

`examples/sapo_table.py` and `examples/poisoning_table.py` are the commands. Sources: SAPO (arXiv
2509.08721, section 5); the controls are those that its table lacks; arXiv 2511.09780 for the
attacks.
"""
