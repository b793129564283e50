"""Turns a stranger's text into token ids that cannot contain a control token, and ids into text.

A peer's completion or a question may contain the words `<|im_end|>` or `<tool_call>`. Encoded the
ordinary way they become control tokens, and the text forges turns of the chat. Here text is
encoded by a copy of the tokenizer that does not know its added tokens (special or not), so the
words are spelled out like any others.

Text is always encoded as a *continuation*: SentencePiece-like tokenizers put a space in front of
what they take for the start of a text, which a completion (and a question inside a chat template)
is not. `decode` undoes exactly that: it keeps the first token's leading space, so a sampler's own
text encodes back to the tokens it sampled, wherever these are the tokenizer's own choice.

Not done here: fitting text into the context, and adding EOS (the trainer's batch does).
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from swarmnode.errors import ConfigError


@dataclass(frozen=True)
class TextCodec:
    """The encodings of one tokenizer. Build it with `text_codec`.

    `forbidden` holds the ids that `encode` never returns. `adds_prefix` is true for tokenizers
    that put a space in front of a text.
    """

    ordinary: Tokenizer  # the model's own, for text that we wrote ourselves
    plain: Tokenizer  # no added tokens, no space in front
    decoder: Tokenizer  # keeps the first token's leading space
    forbidden: frozenset[int]
    adds_prefix: bool

    def encode(self, text: str) -> list[int]:
        """The ids of foreign text: no special or added token, no BOS, EOS or leading space.

        Deterministic. A character that the vocabulary cannot spell is left out.
        """
        ids = self.plain.encode(text, add_special_tokens=False).ids
        # The vocabulary of `plain` has no control token left but the unknown token.
        return [id for id in ids if id not in self.forbidden]

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and for each id the characters of `text` that it stands for, as (start,
        end)."""
        encoding = self.plain.encode(text, add_special_tokens=False)
        found = [
            (id, span)
            for id, span in zip(encoding.ids, encoding.offsets, strict=True)
            if id not in self.forbidden
        ]
        return [id for id, _ in found], [span for _, span in found]

    def encode_markup(self, text: str, starts_text: bool) -> list[int]:
        """The ids of text of our own, such as a chat template, whose control tokens are meant.

        With `starts_text` false the text goes on after other text, so no space is put in front.
        """
        encoding = self.ordinary.encode(text, add_special_tokens=False)
        if starts_text or not self.adds_prefix:
            return list(encoding.ids)
        starts = [
            start
            for id, (start, _) in zip(encoding.ids, encoding.offsets, strict=True)
            if id in self.forbidden
        ]
        head, tail = (text[: starts[0]], text[starts[0] :]) if starts else (text, "")
        # What follows a control token is a new segment to the tokenizer: encoded as usual.
        return self.encode(head) + list(self.ordinary.encode(tail, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens; added non-special tokens are kept."""
        return self.decoder.decode(list(ids), skip_special_tokens=True)


def text_codec(tokenizer: PreTrainedTokenizerBase) -> TextCodec:
    """Prepares the copies once; takes about a second for a vocabulary of 150,000.

    Raises `ConfigError` for a tokenizer that is not backed by the `tokenizers` library.
    """
    ordinary = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(ordinary, Tokenizer):
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json form; "
            "use a model whose folder holds a tokenizer.json"
        )
    description = json.loads(ordinary.to_str())
    continued = _as_continuation(description)
    forbidden = _control_ids(description) | frozenset(tokenizer.all_special_ids)
    return TextCodec(
        ordinary=ordinary,
        plain=Tokenizer.from_str(json.dumps(_without_control(continued, forbidden))),
        decoder=Tokenizer.from_str(json.dumps(continued)),
        forbidden=forbidden,
        adds_prefix=any(
            continued[part] != description[part] for part in ("normalizer", "pre_tokenizer")
        ),
    )


def _control_ids(description: dict[str, Any]) -> frozenset[int]:
    # A single character that is no special token is text, and may be the only way to spell it.
    return frozenset(
        token["id"]
        for token in description["added_tokens"]
        if token["special"] or len(token["content"]) > 1
    )


def _as_continuation(description: dict[str, Any]) -> dict[str, Any]:
    """A copy that puts no space in front of the text and takes none away when decoding."""
    return description | {
        "normalizer": _rewrite(description["normalizer"], "normalizers"),
        "pre_tokenizer": _rewrite(description["pre_tokenizer"], "pretokenizers"),
        "decoder": _rewrite(description["decoder"], "decoders"),
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _rewrite(step: Any, members: str) -> Any:
    """A normalizer, pre-tokenizer or decoder (or None) without its treatment of a leading space."""
    kind = step["type"] if step else None
    if kind == "Sequence":
        rewritten = [_rewrite(member, members) for member in step[members]]
        return step | {members: [member for member in rewritten if member is not None]}
    if kind == "Prepend" or (kind == "Strip" and step.get("content") == " "):
        return None
    if kind == "Metaspace":
        return step | {"prepend_scheme": "never"}
    if kind == "ByteLevel":
        return step | {"add_prefix_space": False}
    return step


def _without_control(description: dict[str, Any], forbidden: frozenset[int]) -> dict[str, Any]:
    """A copy whose vocabulary cannot produce a control token by any spelling.

    The unknown token stays, because models need it; `TextCodec.encode` drops it.
    """
    model = dict(description["model"])
    if isinstance(model["vocab"], list):  # Unigram: the position is the id, so pieces are renamed
        model["vocab"] = [
            [secrets.token_hex(16), score]
            if id in forbidden and id != model["unk_id"]
            else [piece, score]
            for id, (piece, score) in enumerate(model["vocab"])
        ]
    else:
        unknown = model.get("unk_token")
        removed = {
            piece for piece, id in model["vocab"].items() if id in forbidden and piece != unknown
        }
        model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in removed}
        if removed and "merges" in model:
            model["merges"] = [
                [left, right]
                for left, right in model["merges"]
                if removed.isdisjoint((left, right, left + right))
            ]
    return description | {"added_tokens": [], "model": model}
