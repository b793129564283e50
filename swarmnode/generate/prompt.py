"""Renders a question as the prompt's token ids, through the model's chat template if it has one.

The template is rendered once with random markers where the texts go. What lies between the
markers is the template's own text, whose control tokens are meant; the question itself goes
through the safe encoder (`encode.py`), so that a question that spells `<|im_end|>` forges nothing.

Where this differs from `apply_chat_template` on innocent text: a template that trims its content
does not trim a question here, and no token spans the border between template and question
(byte-level BPE would join a question's leading line breaks with a template's trailing one).
"""

import re
import secrets
from dataclasses import dataclass

import jinja2
from transformers import PreTrainedTokenizerBase

from swarmnode.errors import ConfigError
from swarmnode.generate.encode import TextCodec, text_codec


@dataclass(frozen=True)
class PromptEncoder:
    """Question → prompt ids for one tokenizer and one system instruction (`prompt_encoder`).

    `parts` are fixed ids; between two neighbours stands the question, with `before` and `after`
    around it.
    """

    codec: TextCodec
    parts: tuple[tuple[int, ...], ...]
    before: str
    after: str

    def encode(self, prompt: str) -> list[int]:
        """The ids to generate from. The prompt's own words never become control tokens."""
        content = self.codec.encode(self.before + prompt + self.after)
        ids = list(self.parts[0])
        for part in self.parts[1:]:
            ids += content
            ids += part
        return ids


def prompt_encoder(
    tokenizer: PreTrainedTokenizerBase, codec: TextCodec, system: str = ""
) -> PromptEncoder:
    """Prepares the template. `system` is an instruction that precedes every question.

    A template without a system turn gets the instruction in front of the question; a tokenizer
    without a template gets instruction and question as plain lines after its BOS, if it adds one.
    Raises `ConfigError` for a template that fails or that loses the question.
    """
    if not tokenizer.chat_template:
        start = _start_ids(tokenizer)
        space = " " if codec.adds_prefix else ""
        before = space + (f"{system}\n" if system else "")
        return PromptEncoder(codec, (start, ()), before, "\n")
    question, instruction = secrets.token_hex(16), secrets.token_hex(16)
    rendered = _render(tokenizer, question, instruction) if system else None
    if rendered is None or instruction not in rendered:
        before = f"{system}\n\n" if system else ""
        rendered = _render(tokenizer, question, None)
    else:
        before = ""
    if rendered is None or question not in rendered:
        raise ConfigError(
            "the model's chat template cannot show a single user question; use an instruction-"
            "tuned model, or remove the template to prompt it with plain text"
        )
    parts = _split(codec, rendered, question, instruction, system)
    return PromptEncoder(codec, parts, before, "")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str = "") -> list[int]:
    """The prompt of one question. For many questions keep a `prompt_encoder`."""
    return prompt_encoder(tokenizer, text_codec(tokenizer), system).encode(prompt)


def _render(
    tokenizer: PreTrainedTokenizerBase, question: str, instruction: str | None
) -> str | None:
    """The template's text up to where the answer starts; None if the template refuses."""
    messages = [{"role": "user", "content": question}]
    if instruction is not None:
        messages.insert(0, {"role": "system", "content": instruction})
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except jinja2.TemplateError:
        return None
    return str(rendered)


def _split(
    codec: TextCodec, rendered: str, question: str, instruction: str, system: str
) -> tuple[tuple[int, ...], ...]:
    """The fixed ids before, between and after the question."""
    parts: list[tuple[int, ...]] = []
    fixed: list[int] = []
    at_start = True
    for piece in re.split(f"({question}|{instruction})", rendered):
        if piece == question:
            parts.append(tuple(fixed))
            fixed = []
        elif piece == instruction:
            fixed += codec.encode(system)
        elif piece:
            fixed += codec.encode_markup(piece, starts_text=at_start)
        at_start = False
    return (*parts, tuple(fixed))


def _start_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts in front of every text: its BOS, or nothing."""
    ids = list(tokenizer("")["input_ids"])
    while ids and ids[-1] == tokenizer.eos_token_id and ids[-1] != tokenizer.bos_token_id:
        ids.pop()
    return tuple(ids)
