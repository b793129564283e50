"""Answers questions with the current policy.

- `generator.py`: what the node asks of any sampler
- `hf.py`: sampling with a transformers model, in the process that trains it
- `light.py`: its step for Llama-like models on a CPU, written by hand
- `sampling.py`: one token per row, and how likely it was
- `cache.py`: its key-value cache, with room for what is sampled
- `prompt.py`: a question as prompt ids, through the model's chat template
- `encode.py`: strangers' text as token ids that contain no control token, and ids as text
"""
