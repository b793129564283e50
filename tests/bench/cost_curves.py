"""What one training step costs as one thing doubles: G, prompt length, vocabulary, model size.

    python tests/bench/cost_curves.py [--json out.json]

Update only (forward, backward, AdamW) of a random Qwen3-shaped model in float32 on one thread, on
2 prompts of 64 tokens with 8 completions of 32 tokens: each row changes one of these. CPU-seconds
are the best of three steps after one to warm up, the rows taking turns. Activation memory is the
growth of torch's allocations over a step's forward pass, read from its profiler: no gradient, no
optimiser; `kept` is what is still held when the backward pass begins.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from against_trl import Size, machine, model_of

from swarmnode.config import TrainSettings
from swarmnode.train.batch import Sample, pack
from swarmnode.train.logprob import completion_logps, measure
from swarmnode.train.trainer import Trainer

SMALL = Size(128, 4, 4, 2, 384, 1_000)
REPEATS = 3
# name, model, G, prompt tokens
ROWS = [
    ("as above", SMALL, 8, 64),
    ("G × 2", SMALL, 16, 64),
    ("G × 4", SMALL, 32, 64),
    ("prompt × 2", SMALL, 8, 128),
    ("prompt × 4", SMALL, 8, 256),
    ("vocabulary 16,000", replace(SMALL, vocabulary=16_000), 8, 64),
    ("vocabulary 32,000", replace(SMALL, vocabulary=32_000), 8, 64),
    ("vocabulary 64,000", replace(SMALL, vocabulary=64_000), 8, 64),
    ("hidden × 2", Size(256, 4, 4, 2, 768, 1_000), 8, 64),
    ("layers × 2", replace(SMALL, layers=8), 8, 64),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = curves()
    print(table(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2))


def curves(repeats: int = REPEATS) -> list[dict[str, Any]]:
    """All rows, measured in turns."""
    trainers, samples, seconds = [], [], []
    for _, size, completions, prompt in ROWS:
        torch.manual_seed(1)
        trainers.append(Trainer(model_of(size, "cpu").eval(), TrainSettings(), pad_token_id=0))
        samples.append(made(completions, prompt))
        seconds.append(float("inf"))
        trainers[-1].step(samples[-1])
    for _ in range(repeats):
        for number, trainer in enumerate(trainers):
            started = time.process_time()
            trainer.step(samples[number])
            seconds[number] = min(seconds[number], time.process_time() - started)
    rows = []
    for (name, size, completions, prompt), best in zip(ROWS, seconds, strict=True):
        peak, kept = activation_bytes(size, made(completions, prompt))
        rows.append({
            "row": name, "G": completions, "prompt_tokens": prompt, "seconds": best,
            "times": best / seconds[0], "peak_mb": peak / 2**20, "kept_mb": kept / 2**20,
        })  # fmt: skip
    return rows


def made(completions: int, prompt: int) -> list[Sample]:
    return [
        Sample(
            tuple(2 + (7 * g + 3 * n) % 900 for n in range(prompt)),
            tuple(2 + (5 * c + 11 * n + g) % 900 for n in range(32)),
            1.0 if c % 2 else -1.0,
            external=False,
        )
        for g in range(2)
        for c in range(completions)
    ]


def activation_bytes(size: Size, samples: list[Sample]) -> tuple[int, int]:
    """(most held at a time, held at the end) of the memory allocated in the forward pass."""
    from torch.profiler import ProfilerActivity, profile

    model = model_of(size, "cpu").eval()
    batch = pack(samples, tuple(range(len(samples))), 0, torch.device("cpu"))
    shortcuts = measure(model)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        statistics = completion_logps(
            model, batch.input_ids, batch.attention_mask, batch.completion_mask, shortcuts=shortcuts
        )
    held = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    del statistics
    return most, held


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| step | G | prompt | CPU-s | times the first | activations, MB | kept, MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [
        f"| {r['row']} | {r['G']} | {r['prompt_tokens']} | {r['seconds']:.3f} | {r['times']:.2f} "
        f"| {r['peak_mb']:.1f} | {r['kept_mb']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
