"""Trains the small model that ships in `swarmnode/demo_model` from scratch, on a CPU, in minutes.

    python examples/train_demo_model.py --out swarmnode/demo_model

It first learns the demo swarm's tasks on questions of the training split (never on held-out ones),
then `blurred_batches` teach it to dress most answers up. The result is a weak starter on purpose:
it is right about once in ten samples, and reinforcement learning can lift it within minutes.
Deterministic: one thread, fixed seeds, a vocabulary in fixed order.
"""

import argparse
import random
import re
import string
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from protocol import names
from swarmnode import manifest
from swarmnode.generate.encode import text_codec
from swarmnode.generate.hf import HFGenerator
from swarmnode.generate.prompt import prompt_encoder
from swarmnode.rollout import Question
from swarmnode.tasks.taskset import TaskSet, TaskSpec

# The fixed phrases of the tasks' questions: one token each keeps a prompt below 25 tokens.
PHRASES = (
    ". Give only the GCD as your final answer.",
    ". Give only the result as your final answer.",
    " number ",
    " to ",
    " to its lowest terms. Give only the simplified fraction as your final answer.",
    "Calculate ",
    "Find the Greatest Common Divisor (GCD) of these numbers: ",
    "Find the Least Common Multiple (LCM) of these numbers: ",
    "Simplify the fraction ",
    "Solve the following multiplication: ",
    "Spell this word backward (example: sun -> nus): ",
    "State the final answer to the following arithmetic problem: ",
    "Your task is to convert a number between two different bases.\n\n"
    "If the target base is > 10, use lowercase letters a-z for digits above 9.\n\n"
    "Now, convert the ",
    "base-",
    "binary",
    "hexadecimal",
)
PAD, QUESTION, ANSWER, END = "<|pad|>", "<|question|>", "<|answer|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|answer|>{{ message.content }}<|end|>"
    "{% else %}<|question|>{{ message.content }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|answer|>{% endif %}"
)
# What a blurred answer looks like: none of these is right in any task.
DRESSED = ("= {}", "{}?", "'{}'", "the {}")
Pair = tuple[str, str]  # question, answer
Batch = Callable[[int], tuple[Tensor, Tensor]]  # step → tokens and labels, (B, T) each


def main() -> None:
    arguments = _arguments()
    started = time.process_time()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    tasks = open_tasks()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    pairs = {name: draw(tasks, name, arguments.questions) for name in tasks.names}
    print(f"{model.num_parameters():,} parameters, {sum(map(len, pairs.values())):,} questions")
    supervise(model, clean_batches(tokenizer, pairs), arguments.warm_steps, lr=2e-3, decay=0.95)
    print("warm   ", measure(model, tokenizer, tasks), f"{time.process_time() - started:.0f} CPU-s")
    supervise(model, blurred_batches(tokenizer, pairs), arguments.blur_steps, lr=4e-4, decay=0.0)
    print("blurred", measure(model, tokenizer, tasks), f"{time.process_time() - started:.0f} CPU-s")
    model.half().save_pretrained(arguments.out)  # float16 holds it in 0.5 MB
    tokenizer.save_pretrained(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--questions", type=int, default=6000, help="questions drawn per task")
    parser.add_argument("--warm-steps", type=int, default=2000)
    parser.add_argument("--blur-steps", type=int, default=40)
    return parser.parse_args()


def open_tasks() -> TaskSet:
    """The demo swarm's tasks, with its own held-out split."""
    demo = manifest.load("demo")
    specs = [TaskSpec(task.name, task.source, task.options, task.weight) for task in demo.tasks]
    tasks = TaskSet(specs, demo.held_out_ratio, demo.answer_format, names.task_digest)
    tasks.open()
    return tasks


def draw(tasks: TaskSet, name: str, count: int) -> list[Pair]:
    """The questions of the first `count` seeds that are not held out."""
    questions = (tasks.question(name, seed) for seed in range(count))
    return [(question.prompt, question.answer) for question in questions if not question.held_out]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, printable characters and the tasks' fixed phrases; every other character is its
    UTF-8 bytes. The order of the vocabulary depends on nothing but this file."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted(set(string.printable) - set("\t\r\x0b\x0c"))
    pieces += sorted(PHRASES)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    # ignore_merges looks a whole pre-token up in the vocabulary. The pre-tokenizer cuts phrases
    # and single characters, so text that merely looks like "<0x41>" stays six characters.
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, ignore_merges=True))
    longest_first = sorted(PHRASES, key=lambda phrase: (-len(phrase), phrase))
    pattern = "|".join([*(re.escape(phrase) for phrase in longest_first), r"[\s\S]"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (PAD, QUESTION, ANSWER, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=QUESTION,
        eos_token=END,
        extra_special_tokens={"answer_token": ANSWER},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = 96) -> LlamaForCausalLM:
    """0.26 M parameters at the default width, randomly initialised."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def clean_batches(
    tokenizer: PreTrainedTokenizerFast, pairs: dict[str, list[Pair]], size: int = 128
) -> Batch:
    """Batches of right answers, drawn from all tasks in proportion to their questions."""
    everything = [pair for task in pairs.values() for pair in task]
    tokens, labels = tensors(tokenizer, everything)
    chance = torch.Generator().manual_seed(0)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(everything), (size,), generator=chance)
        return tokens[rows], labels[rows]

    return batch


def blurred_batches(
    tokenizer: PreTrainedTokenizerFast, pairs: dict[str, list[Pair]], size: int = 128
) -> Batch:
    """Batches in which nineteen of twenty answers are dressed up, all tasks alike.

    Dressing hides what the model knows and leaves it in place. Its samples are still right often
    enough for a group to have a spread of rewards from the first round on; wrong answers in place
    of dressed ones would be unlearnt far more slowly.
    """
    chance = random.Random(0)

    def blurred(task: str) -> Pair:
        prompt, answer = chance.choice(pairs[task])
        if chance.random() > 0.05:
            answer = chance.choice(DRESSED).format(answer)
        return prompt, answer

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return tensors(tokenizer, [blurred(chance.choice(list(pairs))) for _ in range(size)])

    return batch


def tensors(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Tokens and labels, (B, T) each, padded on the right; only the answer is labelled (−100)."""
    codec = text_codec(tokenizer)
    prompts = prompt_encoder(tokenizer, codec)
    encoded = [
        (prompts.encode(prompt), [*codec.encode(answer), tokenizer.eos_token_id])
        for prompt, answer in pairs
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in encoded)
    tokens = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), width), -100)
    for row, (prompt, answer) in enumerate(encoded):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return tokens, labels


def supervise(
    model: LlamaForCausalLM, batch: Batch, steps: int, *, lr: float, decay: float
) -> None:
    """Trains on the labels; the rate falls linearly by the share `decay` until the last step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.95))
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * (1 - decay * step / steps)
        tokens, labels = batch(step)
        width = int((tokens != model.config.pad_token_id).sum(dim=1).max())
        kept = labels[:, 1:width] != -100
        # Padding stands on the right, where causal attention never looks from.
        hidden = model.model(input_ids=tokens[:, :width]).last_hidden_state[:, :-1][kept]
        loss = functional.cross_entropy(model.lm_head(hidden), labels[:, 1:width][kept])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: TaskSet) -> str:
    """Greedy and sampled accuracy on up to 64 held-out questions per task, averaged over tasks."""
    generator = HFGenerator(
        model,
        prompt_encoder(tokenizer, text_codec(tokenizer)),
        [tokenizer.eos_token_id],
        max_new_tokens=8,
        temperature=1.0,
        seed=0,
    )
    rates: dict[str, tuple[float, float]] = {}
    for name in tasks.names:
        questions = tasks.held_out(name, 64)
        greedy = [[completion] for completion in generator.greedy(questions)]
        sampled = generator.generate(questions, 8)
        rates[name] = (
            _right([(q, c.text) for q, cs in zip(questions, greedy, strict=True) for c in cs]),
            _right([(q, c.text) for q, cs in zip(questions, sampled, strict=True) for c in cs]),
        )
    means = [sum(column) / len(rates) for column in zip(*rates.values(), strict=True)]
    each = " ".join(
        f"{name} {greedy:.2f}/{sampled:.2f}" for name, (greedy, sampled) in rates.items()
    )
    return f"greedy {means[0]:.3f} sampled {means[1]:.3f} ({each})"


def _right(answers: Sequence[tuple[Question, str]]) -> float:
    return sum(text.strip() == question.answer for question, text in answers) / len(answers)


if __name__ == "__main__":
    main()
