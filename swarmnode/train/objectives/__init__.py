"""What is minimised: one objective, one small file, chosen by `train.objective` from one table.

- `tokens.py`: `Tokens`, what every objective is given, and `Terms`, what it returns
- `dapo.py`: clipped surrogate, mean over tokens (default)
- `dr_grpo.py`: the same surrogate, divided by a constant length
- `gspo.py`: one clipped ratio per completion
- `cispo.py`: REINFORCE whose importance weight is bounded; no token loses its gradient
- `dppo_tv.py`: a token is masked by the change of its probability, not of its ratio
- `soft_gate.py`: a sigmoid gate instead of the clip
- `topr.py`: positives as they are, negatives tapered by the completion's probability ratio
- `decoupled.py`: clip against the step's start, importance weight against the sampler
- `table.py`: names → objectives, and how each is averaged

An objective is a pure function of `Tokens` and `TrainSettings`. It gives a loss per token; how
those are added up over own and peers' completions is `loss.py`. In every formula A is the advantage
of the token's completion, π the policy in training, π_old the policy at the start of the step, μ
the policy that sampled, and sg(·) a constant for the gradient.
"""
