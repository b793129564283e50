"""Trains the small model that is shipped in `swarmnode/demo_model` from scratch, on a CPU.

    python examples/train_demo_model.py --out swarmnode/demo_model

The result is a *weak* starter on purpose: it has seen the demo swarm's tasks, then its answers
were blurred with wrong labels, so that reinforcement learning has something to lift. It is
trained on questions of the training split only, never on held-out ones.
"""

import re
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """0.26 M parameters, randomly initialised."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
