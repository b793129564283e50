"""Answers questions with the current policy.

- `generator.py`: what the node asks of any sampler
- `hf.py`: sampling with a transformers model, in the process that trains it
- `light.py`: its step for Llama-like models on a CPU, written by hand
- `sampling.py`: one token per row, and how likely it was
- `cache.py`: its key-value cache, with room for what is sampled
- `vllm.py`: sampling with an engine in a process of its own: hand-overs, restarts, fall-back
- `engine.py`: what such an engine must do; `engine_client.py`: the node's side of its process
- `engine_process.py`: that process, with vLLM in it
- `choice.py`: which of the two, on which device, with which arguments
- `weights.py`, `padding.py`: the policy's tensors as another program reads them
- `prompt.py`: a question as prompt ids, through the model's chat template
- `encode.py`: strangers' text as token ids that contain no control token, and ids as text
"""
