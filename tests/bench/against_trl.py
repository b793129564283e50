"""One GRPO step, generation and update, beside TRL's GRPOTrainer: CPU-seconds and memory.

    python tests/bench/against_trl.py [--sizes 0.8M 6M 5M-32k] [--blocks 3] [--json out.json]
    python tests/bench/against_trl.py --device cuda --sizes 0.5B     # needs a GPU; wall seconds

Equal work: one random model of Qwen3's shape, the same 4 prompts of 90 tokens, 8 completions of
each, 64 tokens in every completion (none may end before), rewards by the completion's first token,
float32 (bfloat16 on a GPU), AdamW, no KL term, DAPO's loss. TRL gets what suits it: no gradient
checkpointing where memory allows, one batch per step, no logging.

Every contestant is a process of one thread, warmed up by two steps. They take turns, A/B/A/B, a
block of steps each, so a busy machine hits both. Counted is the process's own CPU time (wall time
on a GPU); memory is the growth of its peak resident set over that before its first step (peak
allocated memory on a GPU).
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

GROUPS, COMPLETIONS, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 90, 64
WARMUP, BLOCK_STEPS = 2, 3
LR = 1e-5
CONTESTANTS = ("swarmnode", "trl")


@dataclass(frozen=True, slots=True)
class Size:
    """A Qwen3 with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int


SIZES = {
    "0.8M": Size(128, 4, 4, 2, 384, 100),
    "6M": Size(256, 8, 4, 2, 768, 100),
    "5M-32k": Size(128, 4, 4, 2, 384, 32_000),
    "0.5B": Size(896, 24, 14, 2, 4864, 151_936),
}


def main() -> None:
    chosen = arguments()
    if chosen.contestant:
        serve(chosen.contestant, chosen.sizes[0], chosen.device)
        return
    results = [duel(name, chosen.blocks, chosen.device) for name in chosen.sizes]
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.8M", "6M", "5M-32k"])
    parser.add_argument("--blocks", type=int, default=3, help=f"of {BLOCK_STEPS} steps each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parent ---


def duel(size: str, blocks: int, device: str) -> dict[str, Any]:
    """Both contestants, in turns."""
    rivals = {name: start(name, size, device) for name in CONTESTANTS}
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    memory: dict[str, float] = {}
    try:
        for _ in range(blocks):
            for name, rival in rivals.items():
                answer = ask(rival, name)
                seconds[name] += answer["seconds"]
                memory[name] = answer["memory_mb"]
    finally:
        for rival in rivals.values():
            rival.kill()
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = GROUPS * COMPLETIONS * NEW_TOKENS
    return {
        "size": size,
        "steps": blocks * BLOCK_STEPS,
        "seconds": seconds,
        "median_s": medians,
        "tokens_per_s": {name: tokens / median for name, median in medians.items()},
        "memory_mb": memory,
        "times_faster": medians["trl"] / medians["swarmnode"],
        "memory_share": memory["swarmnode"] / memory["trl"],
        "memory_estimate": estimated_mb(SIZES[size], device) / memory["swarmnode"],
    }


def estimated_mb(size: Size, device: str) -> float:
    """What `swarmnode/train/footprint.py` expects of the growth measured here: all but weights."""
    from swarmnode import config
    from swarmnode.train.footprint import Shape, estimate

    head = size.hidden // size.heads
    shape = Shape(
        parameters=0,
        weight_bytes=2 if device == "cuda" else 4,
        layers=size.layers,
        hidden=size.hidden,
        queries=size.hidden,
        keys=size.kv_heads * head,
        intermediate=size.intermediate,
    )
    layer = 2 * size.hidden * (size.hidden + shape.keys) + 3 * size.hidden * size.intermediate
    shape = replace(shape, parameters=size.vocabulary * size.hidden + size.layers * layer)
    work = {"questions": GROUPS, "completions": COMPLETIONS, "max_new_tokens": NEW_TOKENS}
    settings = config.load(None, {"generate": work, "sharing": {"rule": "off"}})
    found = estimate(settings, shape, device, PROMPT_TOKENS)
    return (found.training + max(found.activations + found.logits, found.cache)) / 2**20


def start(name: str, size: str, device: str) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--contestant", name, "--sizes", size, "--device", device]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(rival: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """One block of steps."""
    assert rival.stdin is not None
    assert rival.stdout is not None
    rival.stdin.write("go\n")
    rival.stdin.flush()
    for line in rival.stdout:
        if line.startswith("{"):  # a library may print too
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise SystemExit(f"{name} died")


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| model | swarmnode, s | TRL, s | times faster | swarmnode, MB | TRL, MB | share "
        "| estimate / measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        median, memory = result["median_s"], result["memory_mb"]
        lines.append(
            f"| {result['size']} | {median['swarmnode']:.2f} | {median['trl']:.2f} "
            f"| {result['times_faster']:.2f} | {memory['swarmnode']:.0f} | {memory['trl']:.0f} "
            f"| {result['memory_share']:.2f} | {result['memory_estimate']:.2f} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "trl")}
    return {"processor": platform.processor() or platform.machine(), **packages}


# --- one contestant ---


def serve(name: str, size: str, device: str) -> None:
    """Steps on demand, reported as JSON lines."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    step = {"swarmnode": swarmnode_step, "trl": trl_step}[name](SIZES[size], device)
    before = resident_mb()
    for _ in range(WARMUP):
        step()
    for _ in sys.stdin:
        seconds = []
        for _ in range(BLOCK_STEPS):
            started = clock(device)
            step()
            seconds.append(clock(device) - started)
        memory = (
            torch.cuda.max_memory_allocated() / 2**20
            if device == "cuda"
            else peak_resident_mb() - before
        )
        print(json.dumps({"seconds": seconds, "memory_mb": memory}), flush=True)


def clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def model_of(size: Size, device: str) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.hidden // size.heads,
        intermediate_size=size.intermediate,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return Qwen3ForCausalLM(config).to(device=device, dtype=dtype)


def tokenizer_of(vocabulary: int) -> Any:
    """One token for each word "t<n>"; 0 pads, 1 ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1} | {f"t{n}": n for n in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def prompts() -> list[list[int]]:
    return [[2 + (7 * g + 3 * n) % 90 for n in range(PROMPT_TOKENS)] for g in range(GROUPS)]


def reward(first_token: int) -> float:
    return float(first_token % 2)


class Prompts:
    """Prompts are given as ids, and nothing is decoded to text."""

    codec = property(lambda self: self)

    def encode(self, text: str) -> list[int]:
        return prompts()[int(text)]

    def decode(self, ids: list[int]) -> str:
        return ""


def swarmnode_step(size: Size, device: str) -> Callable[[], None]:
    """The node's generator and trainer."""
    from swarmnode.config import TrainSettings
    from swarmnode.generate.hf import HFGenerator
    from swarmnode.rollout import Question
    from swarmnode.train.advantage import group_advantages
    from swarmnode.train.batch import Sample
    from swarmnode.train.trainer import Trainer

    model = model_of(size, device)
    encoder: Any = Prompts()
    generator = HFGenerator(model, encoder, (), max_new_tokens=NEW_TOKENS, temperature=1.0, seed=1)
    trainer = Trainer(model, TrainSettings(lr=LR), pad_token_id=0)
    questions = [Question("bench", b"", n, str(n), "", False) for n in range(GROUPS)]

    def step() -> None:
        samples = []
        for prompt, group in zip(
            prompts(), generator.generate(questions, COMPLETIONS), strict=True
        ):
            ids = [completion.token_ids or () for completion in group]
            values = group_advantages([reward(one[0]) for one in ids], "mean_std")
            samples += [
                Sample(tuple(prompt), one, value, False, completion.logps)
                for one, value, completion in zip(ids, values, group, strict=True)
            ]
        trainer.step(samples)

    return step


def trl_step(size: Size, device: str) -> Callable[[], None]:
    """TRL's trainer, one of its steps at a time."""
    import tempfile

    import datasets
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    tokenizer = tokenizer_of(size.vocabulary)
    text = [" ".join(f"t{token}" for token in prompt) for prompt in prompts()]

    def rewards(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [reward(ids[0]) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=model_of(size, device),
        processing_class=tokenizer,
        reward_funcs=rewards,
        train_dataset=datasets.Dataset.from_dict({"prompt": text}),
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=GROUPS * COMPLETIONS,
            num_generations=COMPLETIONS,
            max_completion_length=NEW_TOKENS,
            generation_kwargs={"min_new_tokens": NEW_TOKENS},
            learning_rate=LR,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=device == "cuda",
            use_cpu=device == "cpu",
            max_steps=10**6,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=1,
        ),
    )
    return _stepwise(trainer)


def _stepwise(trainer: Any) -> Callable[[], None]:
    """TRL trains in one call: it runs in a thread that waits before every step."""
    import threading

    from transformers import TrainerCallback

    go, done = threading.Semaphore(0), threading.Semaphore(0)

    class Pause(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            done.release()
            go.acquire()

    trainer.add_callback(Pause())

    def train() -> None:
        go.acquire()
        trainer.train()

    threading.Thread(target=train, daemon=True).start()

    def step() -> None:
        go.release()
        done.acquire()

    return step


if __name__ == "__main__":
    main()
