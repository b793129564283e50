"""What all nodes of a run have in common: tasks, tokenizer, held-out questions, and the scores.

Answers are scored by the code that the scorer process runs, here without the process: no text
comes from a stranger, and the same text always gets the same reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from swarmnode import manifest
from swarmnode.generate.encode import TextCodec, text_codec
from swarmnode.generate.prompt import PromptEncoder, prompt_encoder
from swarmnode.manifest import Manifest
from swarmnode.questions import open_tasks, swarm_id
from swarmnode.rollout import Question
from swarmnode.tasks import answer, compare
from swarmnode.tasks.taskset import TaskSet, best_constant


@dataclass(frozen=True, eq=False)
class World:
    """Made by `open_world`. `held_out` and `constant_baseline` are by task; `model` is the start,
    of which every node has its copy, and `small` that of the small nodes, if there are any."""

    swarm: Manifest
    swarm_id: bytes
    tasks: TaskSet
    held_out: dict[str, list[Question]]
    constant_baseline: dict[str, float]
    model: LlamaForCausalLM
    small: LlamaForCausalLM | None
    tokenizer: PreTrainedTokenizerFast
    codec: TextCodec
    prompts: PromptEncoder

    def score(self, question: Question, texts: Sequence[str]) -> tuple[float, ...]:
        """1.0 for each text whose answer is right, else 0.0."""
        found = (answer.extract(text, self.swarm.answer_format) for text in texts)
        return tuple(
            float(given is not None and compare.is_right(given, question.answer, question.metadata))
            for given in found
        )


def open_world(start: Path, evaluate_questions: int, small: Path | None = None) -> World:
    """The demo swarm's tasks and the warm starts in the folders `start` and `small`."""
    swarm = manifest.load("demo")
    told = answer.instruction(swarm.answer_format)
    return world_of(swarm, start, evaluate_questions, small, told)


def world_of(
    swarm: Manifest,
    start: Path,
    evaluate_questions: int,
    small: Path | None = None,
    instruction: str = "",
) -> World:
    """The tasks of `swarm`, the warm starts in two folders, and what prompts begin with."""
    tasks = open_tasks(swarm)
    held_out = {name: tasks.held_out(name, evaluate_questions) for name in tasks.names}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    codec = text_codec(tokenizer)
    return World(
        swarm=swarm,
        swarm_id=swarm_id(swarm, tasks),
        tasks=tasks,
        held_out=held_out,
        constant_baseline={name: best_constant(asked) for name, asked in held_out.items()},
        model=LlamaForCausalLM.from_pretrained(start).eval(),
        small=LlamaForCausalLM.from_pretrained(small).eval() if small else None,
        tokenizer=tokenizer,
        codec=codec,
        prompts=prompt_encoder(tokenizer, codec, instruction),
    )
