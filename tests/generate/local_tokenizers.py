"""Small tokenizers of the types that real models use, trained here on a few lines of text."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "What is the sum of 12 and 30? The answer is 42.",
    "Calculate 5 - 3. Spell this word backward: both",
    "the the the and and answer answer sum sum is is of of user system assistant",
    "Think step by step, then give the final answer. end start im think tool call",
] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as of GPT-2 and Qwen, with special and with added ordinary tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    ordinary = ("<think>", "</think>", "<tool_call>")
    backend.add_tokens([AddedToken(text, normalized=False) for text in ordinary])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """BPE with byte fallback and a space put in front of every text, as of Llama 2."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # Training needs words, or it would merge whole lines; the trained tokenizer splits nothing.
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=control, show_progress=False)
    )
    fresh = _with_added_tokens(backend, control[:3])
    fresh.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fresh.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fresh,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=ZEPHYR,
    )


def unigram() -> PreTrainedTokenizerFast:
    """Unigram, whose vocabulary itself spells its control tokens, as of T5 and XLNet."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    control = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=control, unk_token="<unk>", show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """WordPiece that splits at white space only, so that a control token can be one word."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    control = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    backend.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=control, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", eos_token="[SEP]", pad_token="[PAD]"
    )


def _with_added_tokens(trained: Tokenizer, special: list[str]) -> Tokenizer:
    """The trained model with only these as special tokens, and no pre-tokenizer."""
    fresh = Tokenizer(trained.model)
    fresh.normalizer = trained.normalizer
    fresh.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return fresh
