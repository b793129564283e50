"""Tasks whose answers stand in a longer text, and the warm starts of models that write such texts.

A completion is a working and the answer between tags, `3+4=7<answer>7</answer>`; only the
answer is scored (`worked.toml`), so a peer can put whatever it likes around it. The recipe is that
of `starts.py`: right texts first, then most answers dressed up until the reward is sparse. The
model is narrower and its tasks are fewer, so that a start takes twenty CPU seconds.
"""

import json
import os
import random
import re
import shutil
import string
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import train_demo_model as recipe
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from swarmnode import manifest
from swarmnode.questions import open_tasks
from swarmnode.rollout import Question
from swarmnode.tasks.answer import CLOSE_TAG, OPEN_TAG
from swarmnode.tasks.taskset import TaskSet

from .world import World, world_of

MANIFEST = Path(__file__).with_name("worked.toml")
QUESTIONS = 1000  # drawn per task
WIDTH = 64  # 0.12 M parameters
WARM_STEPS = 600  # of 32 texts
BLUR_STEPS = 40
# Share of texts whose answer the blur leaves undressed.
_CLEAR = 0.05
_CHARACTERS = "0123456789+-*=?.;#_ " + string.ascii_lowercase
_PHRASES = (
    "State the final answer to the following arithmetic problem: ",
    "Solve the following multiplication: ",
    ". Give only the result as your final answer.",
    "say ",
)
# Words that the model learns to repeat when told to, so that it can write more than sums, as every
# language model can.
_WORDS, _WORD_LETTERS = 1000, 4
_DRESSED = ("{}?", "={}")
_SIZE = 32


def text_of(question: Question) -> str:
    """The right completion: the working that an honest model was taught, and the answer."""
    return f"{working(question)}{OPEN_TAG}{question.answer}{CLOSE_TAG}"


def working(question: Question) -> str:
    """What stands in front of the answer: the equation that it solves."""
    return f"{expression(question)}={question.answer}"


def expression(question: Question) -> str:
    """The left side of an arithmetic question's equation, without spaces: `3+4`."""
    asked = question.prompt.partition(": ")[2].partition(". ")[0]
    return asked.replace("=", "").replace(" ", "")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The few characters of these tasks, the fixed phrases of their questions and the tags, each
    one token. Few, so that a weak model's samples are not noise from tokens that it never saw."""
    phrases = sorted({OPEN_TAG, CLOSE_TAG, *_PHRASES}, key=lambda phrase: (-len(phrase), phrase))
    pieces = [*_CHARACTERS, *phrases]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    pattern = "|".join([*map(re.escape, phrases), r"[\s\S]"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.decoder = decoders.Fuse()
    specials = (recipe.PAD, recipe.QUESTION, recipe.ANSWER, recipe.END)
    backend.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in specials]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=recipe.PAD,
        bos_token=recipe.QUESTION,
        eos_token=recipe.END,
        extra_special_tokens={"answer_token": recipe.ANSWER},
        chat_template=recipe.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def start_folder(cache: Path, seed: int, warm_steps: int = WARM_STEPS) -> Path:
    """Where the warm start of this seed is kept."""
    return cache / f"worked-warm{warm_steps}-seed{seed}-blur{BLUR_STEPS}"


def make_start(cache: Path, seed: int, warm_steps: int = WARM_STEPS) -> Path:
    """The folder of this seed's warm start, made if the cache lacks it. Deterministic on one
    thread."""
    folder = start_folder(cache, seed, warm_steps)
    if folder.exists():
        return folder
    started = time.process_time()
    torch.manual_seed(seed)
    tasks, tokenizer = open_tasks(manifest.load(str(MANIFEST))), build_tokenizer()
    drawn = {name: _draw(tasks, name, seed) for name in tasks.names}
    clean = {
        name: [(question.prompt, text_of(question)) for question in questions]
        for name, questions in drawn.items()
    }
    clean["words"] = _words(random.Random(seed))
    model = recipe.build_model(tokenizer, WIDTH)
    recipe.supervise(
        model, recipe.clean_batches(tokenizer, clean, _SIZE), warm_steps, lr=6e-3, decay=0.95
    )
    blurred = _blurred_batches(tokenizer, drawn)
    recipe.supervise(model, blurred, BLUR_STEPS, lr=6e-4, decay=0.0)
    _keep(folder, model, tokenizer, time.process_time() - started)
    return folder


def open_worked_world(start: Path, evaluate_questions: int) -> World:
    """The worked tasks and the warm start in the folder `start`."""
    # Without the instruction to think: these models were taught nothing else.
    return world_of(manifest.load(str(MANIFEST)), start, evaluate_questions)


def _draw(tasks: TaskSet, name: str, seed: int) -> list[Question]:
    """This seed's own questions of the training split."""
    numbers = range(seed * QUESTIONS, (seed + 1) * QUESTIONS)
    questions = (tasks.question(name, number) for number in numbers)
    return [question for question in questions if not question.held_out]


def _words(rng: random.Random) -> list[recipe.Pair]:
    words = ("".join(rng.choices(string.ascii_lowercase, k=_WORD_LETTERS)) for _ in range(_WORDS))
    return [(f"say {word}", word) for word in words]


def _blurred_batches(
    tokenizer: PreTrainedTokenizerFast, drawn: Mapping[str, Sequence[Question]], size: int = _SIZE
) -> recipe.Batch:
    """Texts whose answers are dressed up, nineteen of twenty; their workings are left alone."""
    chance = random.Random(0)
    names = list(drawn)

    def blurred() -> recipe.Pair:
        question = chance.choice(drawn[chance.choice(names)])
        answer = question.answer
        if chance.random() > _CLEAR:
            answer = chance.choice(_DRESSED).format(answer)
        return question.prompt, f"{working(question)}{OPEN_TAG}{answer}{CLOSE_TAG}"

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return recipe.tensors(tokenizer, [blurred() for _ in range(size)])

    return batch


def _keep(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, cpu_s: float
) -> None:
    """Writes the start whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    (temporary / "start.json").write_text(json.dumps({"cpu_s": round(cpu_s, 1)}) + "\n")
    if folder.exists():  # made by another process in the meantime
        shutil.rmtree(temporary)
    else:
        temporary.rename(folder)
