"""What one GPU does: tokens/s, share of its peak FLOP/s, peak memory; beside TRL where installed.

    python tests/bench/gpu.py [--json out.json] [--minutes 8]
    python tests/bench/gpu.py --device cpu --tiny         # a dry run of the same code

Unattended: it needs no network, starts with what matters most, stops when the minutes are over, and
rewrites the JSON after every row. A row is one random model of Qwen2.5-0.5B's size in bfloat16 (or
`--tiny`), generation and update apart:

- FLOP: 2 · P per token generated or prefilled, 6 · P per token trained, prompts counted once per
  group as they are computed; P without the embedding. Attention is left out, so shares are too low.
- peak: that of one 8,192³ matrix product in the model's dtype, measured here (1,024³ in a dry run),
  not a data sheet's.

Then the whole step beside TRL's on `against_trl.py`'s work, in processes of their own.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from against_trl import SIZES, Size, clock, duel, machine, model_of

from swarmnode.config import TrainSettings
from swarmnode.generate.hf import HFGenerator
from swarmnode.rollout import Question
from swarmnode.train.batch import Sample
from swarmnode.train.trainer import Trainer

REPEATS = 2  # timed, after one to warm up


@dataclass(frozen=True, slots=True)
class Work:
    """One step."""

    prompts: int
    completions: int
    prompt_tokens: int
    new_tokens: int


WORKS = [Work(4, 8, 90, 64), Work(8, 16, 256, 256), Work(8, 16, 256, 1024)]
TINY_WORKS = [Work(2, 4, 12, 6)]


class Prompts:
    """Prompts are given as ids, and nothing is decoded to text."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    @property
    def codec(self) -> "Prompts":
        return self

    def encode(self, text: str) -> list[int]:
        return [2 + (7 * int(text) + 3 * n) % 90 for n in range(self._tokens)]

    def decode(self, ids: list[int]) -> str:
        return ""


def main() -> None:
    chosen = arguments()
    ends = time.monotonic() + 60 * chosen.minutes
    torch.manual_seed(1)
    size = SIZES["0.8M" if chosen.tiny else "0.5B"]
    dtype = torch.bfloat16 if chosen.device == "cuda" else torch.float32
    peak = peak_flops(chosen.device, dtype, 1024 if chosen.tiny else 8192)
    result: dict[str, Any] = {
        "machine": machine() | {"device": device_name(chosen.device)},
        "peak_tflops": peak / 1e12,
        "rows": [],
    }
    print(f"{result['machine']['device']}: {peak / 1e12:.2f} TFLOP/s in one matrix product")
    for work in TINY_WORKS if chosen.tiny else WORKS:
        if time.monotonic() > ends:
            break
        row = measured(size, work, chosen.device, peak)
        result["rows"].append(row)
        print(line(row), flush=True)
        save(chosen.json, result)
    if not chosen.tiny and importlib.util.find_spec("trl") and time.monotonic() < ends:
        found = duel("0.5B", 1, chosen.device)
        result["beside_trl"] = found
        print(f"whole step: {found['median_s']} s, {found['times_faster']:.2f} times TRL's speed, "
              f"{found['memory_share']:.2f} of its memory")  # fmt: skip
        save(chosen.json, result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --device cpu --tiny is a dry run")
    return chosen


def measured(size: Size, work: Work, device: str, peak: float) -> dict[str, Any]:
    """Seconds, rates and memory of both phases."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = model_of(size, device).eval()
    prompts: Any = Prompts(work.prompt_tokens)
    generator = HFGenerator(
        model, prompts, (), max_new_tokens=work.new_tokens, temperature=1.0, seed=1
    )
    trainer = Trainer(model, TrainSettings(), pad_token_id=0)
    questions = [Question("bench", b"", n, str(n), "", False) for n in range(work.prompts)]
    groups: list[list[Any]] = []

    def generate() -> None:
        groups[:] = generator.generate(questions, work.completions)

    def train() -> None:
        trainer.step([
            Sample(tuple(prompts.encode(str(n))), one.token_ids, (-1.0) ** c, False, one.logps)
            for n, group in enumerate(groups)
            for c, one in enumerate(group)
        ])  # fmt: skip

    generation_s, update_s = timed([generate, train], device)
    parameters = sum(p.numel() for p in model.parameters())
    # Tied: the head is multiplied by, at completions only; counted for prompts' tokens it is not.
    body = parameters - size.vocabulary * size.hidden
    tokens = work.prompts * work.completions * work.new_tokens
    shared = work.prompts * work.prompt_tokens
    passes = body * (tokens + shared) + (parameters - body) * tokens
    return {
        **asdict(work),
        "parameters": parameters,
        "generation_s": generation_s,
        "update_s": update_s,
        "generated_tokens_per_s": tokens / generation_s,
        "trained_tokens_per_s": tokens / update_s,
        "generation_peak_share": 2 * passes / generation_s / peak,
        "update_peak_share": 6 * passes / update_s / peak,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
    }


def timed(phases: list[Callable[[], None]], device: str) -> list[float]:
    """The best seconds of each phase, one after the other."""
    best = [float("inf")] * len(phases)
    for repeat in range(1 + REPEATS):
        for number, phase in enumerate(phases):
            started = clock(device)
            phase()
            seconds = clock(device) - started
            if repeat:
                best[number] = min(best[number], seconds)
    return best


def peak_flops(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of the best of some matrix products."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = clock(device)
        a @ a
        best = min(best, clock(device) - started)
    return 2 * side**3 / best


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def line(row: dict[str, Any]) -> str:
    memory = "" if row["peak_gb"] is None else f", {row['peak_gb']:.1f} GB at most"
    return (
        f"{row['prompts']}×{row['completions']} completions of {row['new_tokens']} tokens on "
        f"{row['prompt_tokens']}: generation {row['generation_s']:.2f} s "
        f"({row['generated_tokens_per_s']:,.0f} tokens/s, {row['generation_peak_share']:.1%} of "
        f"peak), update {row['update_s']:.2f} s ({row['trained_tokens_per_s']:,.0f} tokens/s, "
        f"{row['update_peak_share']:.1%} of peak){memory}"
    )


def save(path: Path | None, result: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
