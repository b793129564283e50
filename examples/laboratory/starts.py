"""One warm start per seed: the demo model's recipe with other weights and other questions.

The recipe is that of `examples/train_demo_model.py`, shortened: right answers first, then dressed
up ones until the reward is as sparse as a regime wants. The seed decides the initial weights and
which questions are drawn, so seeds differ in what their models know.

A start is made once and kept in a cache folder under a name that holds everything it depends on
but this file and the recipe's; `start.json` beside the weights tells its pass rates and its cost.
Cost on one core: about `WARM_STEPS` × 0.1 CPU seconds for a seed, shared by its blur levels.
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import train_demo_model as recipe
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from swarmnode.tasks.taskset import TaskSet

QUESTIONS = 6000  # drawn per task
WARM_STEPS = 1200  # of 128 answers
WIDTH = 96  # of the demo model
SMALLER_STEPS = 600  # of a narrower model


def start_folder(
    cache: Path, seed: int, blur_steps: int, warm_steps: int = WARM_STEPS, width: int = WIDTH
) -> Path:
    """Where the start of this seed, blur level and model width is kept."""
    suffix = "" if width == WIDTH else f"-width{width}"
    return cache / f"warm{_steps(warm_steps, width)}-seed{seed}-blur{blur_steps}{suffix}"


def make_starts(
    cache: Path,
    seed: int,
    blur_levels: Sequence[int],
    warm_steps: int = WARM_STEPS,
    width: int = WIDTH,
) -> None:
    """Makes those starts of one seed and width that the cache lacks. Deterministic on one
    thread."""
    missing = [
        steps
        for steps in sorted(set(blur_levels))
        if not start_folder(cache, seed, steps, warm_steps, width).exists()
    ]
    if not missing:
        return
    tasks, tokenizer = recipe.open_tasks(), recipe.build_tokenizer()
    pairs = {name: _draw(tasks, name, seed) for name in tasks.names}
    warm = start_folder(cache, seed, 0, warm_steps, width)
    if not warm.exists():
        started = time.process_time()
        torch.manual_seed(seed)
        model = recipe.build_model(tokenizer, width)
        batches = recipe.clean_batches(tokenizer, pairs)
        recipe.supervise(model, batches, _steps(warm_steps, width), lr=2e-3, decay=0.95)
        _keep(warm, model, tokenizer, tasks, started)
    for blur_steps in missing:
        if blur_steps == 0:
            continue
        started = time.process_time()
        model = LlamaForCausalLM.from_pretrained(warm)
        batches = recipe.blurred_batches(tokenizer, pairs)
        recipe.supervise(model, batches, blur_steps, lr=4e-4, decay=0.0)
        folder = start_folder(cache, seed, blur_steps, warm_steps, width)
        _keep(folder, model, tokenizer, tasks, started)


def _steps(warm_steps: int, width: int) -> int:
    return warm_steps if width == WIDTH else min(warm_steps, SMALLER_STEPS)


def _draw(tasks: TaskSet, name: str, seed: int) -> list[recipe.Pair]:
    """This seed's own questions of the training split."""
    numbers = range(seed * QUESTIONS, (seed + 1) * QUESTIONS)
    questions = (tasks.question(name, number) for number in numbers)
    return [(question.prompt, question.answer) for question in questions if not question.held_out]


def _keep(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tasks: TaskSet,
    started: float,
) -> None:
    """Writes the start whole or not at all."""
    cpu_s = round(time.process_time() - started, 1)
    record = {"cpu_s": cpu_s, "held_out": recipe.measure(model, tokenizer, tasks)}
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    (temporary / "start.json").write_text(json.dumps(record, indent=2) + "\n")
    if folder.exists():  # made by another process in the meantime
        shutil.rmtree(temporary)
    else:
        temporary.rename(folder)
