"""The messages: fields, widths and bounds (SPEC.md section 5). No bytes, no signatures here.

Two kinds of rule. A field's type, width and count are in its annotation: msgspec holds them while
decoding, so a hostile length is refused before anything is allocated, and breaking them is
`malformed`. What an annotation cannot say (bytes of UTF-8, characters, columns of equal length) is
in `violation`, and breaking it is `out_of_bounds`.

A rollout carries no reward, no answer and no question: the receiver makes the question itself from
task and seed, and scores the texts itself.
"""

import enum
import math
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Meta

from protocol.errors import Reason
from protocol.limits import (
    ENDED_BYTES,
    HASH_BYTES,
    HELD_BYTES,
    ITEM_BYTES,
    MAX_COMPLETIONS,
    MAX_FRAME_BYTES,
    MAX_HELD,
    MAX_ITEMS,
    MAX_LABEL_BYTES,
    MAX_LOGP_THOUSANDTHS,
    MAX_SOFTWARE_BYTES,
    MAX_SWARM_NAME_BYTES,
    MAX_TEMPERATURE_HUNDREDTHS,
    MAX_TEXT_BYTES,
    MAX_TOKEN_COUNT,
    PROTOCOL_VERSION,
    STATS_ENTRY_BYTES,
    TASK_DIGEST_BYTES,
    U8_MAX,
    U16_MAX,
    U32_MAX,
)

U8 = Annotated[int, Meta(ge=0, le=U8_MAX)]
U16 = Annotated[int, Meta(ge=0, le=U16_MAX)]
U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
TaskDigest = Annotated[bytes, Meta(min_length=TASK_DIGEST_BYTES, max_length=TASK_DIGEST_BYTES)]
# Lengths of str count characters, of which UTF-8 makes one to four bytes: `violation` counts bytes.
Label = Annotated[str, Meta(max_length=MAX_LABEL_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]
Texts = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MAX_COMPLETIONS)]
Stats = Annotated[
    bytes,
    Meta(
        min_length=STATS_ENTRY_BYTES + ENDED_BYTES,
        max_length=MAX_COMPLETIONS * STATS_ENTRY_BYTES + ENDED_BYTES,
    ),
]
Items = Annotated[bytes, Meta(max_length=MAX_ITEMS * ITEM_BYTES)]
Held = Annotated[bytes, Meta(max_length=MAX_HELD * HELD_BYTES)]

_STATS = struct.Struct(">HH")
_ITEM = struct.Struct(f">{HASH_BYTES}s{TASK_DIGEST_BYTES}sII")
# Control characters (Unicode category Cc, a closed set) except tab, line feed and carriage return.
_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_REFUSED_IN_TEXT = re.compile(f"[{_CONTROL}]")
_DROPPED_FROM_TEXT = re.compile(f"[{_CONTROL}\ud800-\udfff]")  # surrogates have no UTF-8
_REFUSED_IN_LABEL = re.compile(r"[^\x20-\x7e]")


class Kind(enum.IntEnum):
    """What a frame holds: its second byte, unless the body is compressed (`envelope`)."""

    ROLLOUT = 1
    ANNOUNCEMENT = 2


M = TypeVar("M", bound="Rollout | Announcement | Hello")


class Item(NamedTuple):
    """One rollout that an announcement offers. `frame_bytes` is the size of its whole frame."""

    rollout_id: bytes
    task_digest: bytes
    seed: int
    frame_bytes: int


class Rollout(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Completions of one question. Make it with `build`; fields are as on the wire.

    `seed` is the author's question number (`names.question_seed` gives the generator's seed),
    `created` the author's clock in Unix seconds, `policy_version` its optimiser steps so far,
    `stats` one (u16 thousandths of −nat, u16 tokens) per text, then one byte whose bit i, from the
    lowest, says whether text i was ended by its sampler.
    """

    task_digest: TaskDigest
    seed: U32
    created: U32
    policy_version: U32
    temperature_hundredths: U16
    model_label: Label
    stats: Stats
    texts: Texts

    @classmethod
    def build(
        cls,
        *,
        task_digest: bytes,
        seed: int,
        created: float,
        policy_version: int,
        temperature: float,
        model_label: str,
        texts: Sequence[str],
        mean_logps: Sequence[float],
        token_counts: Sequence[int],
        ended: Sequence[bool],
    ) -> Self:
        """A rollout of these completions, rounded, saturated and cleaned so that none refuses it.

        Raises `ValueError` for what is no rollout: columns of unequal length, more than
        MAX_COMPLETIONS texts, a NaN, an integer out of its range.
        """
        if not len(texts) == len(mean_logps) == len(token_counts) == len(ended):
            raise ValueError("texts, mean_logps, token_counts and ended differ in length")
        if len(texts) > MAX_COMPLETIONS:
            raise ValueError(f"{len(texts)} texts, more than {MAX_COMPLETIONS}")
        stats = b"".join(map(_pack_stats, mean_logps, token_counts)) + _pack_ended(ended)
        return _checked(
            cls(
                task_digest,
                seed,
                int(created),
                policy_version,
                round(temperature * 100),
                clean_label(model_label),
                stats,
                tuple(clean_text(text) for text in texts),
            )
        )

    @property
    def temperature(self) -> float:
        """The sampler's temperature; 0 is greedy."""
        return self.temperature_hundredths / 100

    @property
    def mean_logps(self) -> tuple[float, ...]:
        """Per text, the sampler's mean log-probability per token, in nats, −65.535 to 0."""
        return tuple(-logp / 1000 for logp, _ in self._entries())

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Per text, the tokens the sampler made, at least 1."""
        return tuple(count for _, count in self._entries())

    @property
    def ended(self) -> tuple[bool, ...]:
        """Per text, whether the sampler ended it by EOS; else its length limit cut it."""
        return tuple(bool(self.stats[-1] >> index & 1) for index in range(len(self.texts)))

    def _entries(self) -> Iterator[tuple[int, int]]:
        return _STATS.iter_unpack(self.stats[:-ENDED_BYTES])


class Announcement(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one node offers in one round. Make it with `build`; `items` and `held` unpack the packed
    columns.

    Without items it only says that the node is there. `held` are the first `HELD_BYTES` bytes of
    the ids of others' rollouts that it serves, too.
    """

    round: U32
    created: U32
    policy_version: U32
    model_label: Label
    packed_items: Items
    packed_held: Held

    @classmethod
    def build(
        cls,
        *,
        round: int,
        created: float,
        policy_version: int,
        model_label: str,
        items: Sequence[Item],
        held: Sequence[bytes] = (),
    ) -> Self:
        """An announcement of these items, and of whole ids that are `held`, of which it keeps the
        beginnings; `ValueError` for one that others would refuse."""
        packed = b"".join(map(_pack_item, items))
        begins = b"".join(dict.fromkeys(id[:HELD_BYTES] for id in held))
        label = clean_label(model_label)
        return _checked(cls(round, int(created), policy_version, label, packed, begins))

    @property
    def items(self) -> tuple[Item, ...]:
        """The offered rollouts, in the author's order."""
        return tuple(Item(*fields) for fields in _ITEM.iter_unpack(self.packed_items))

    @property
    def held(self) -> tuple[bytes, ...]:
        """The beginnings of the ids that are held, each once."""
        packed = self.packed_held
        return tuple(packed[at : at + HELD_BYTES] for at in range(0, len(packed), HELD_BYTES))


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """Who a node is, readable in every version. Later versions only append fields.

    `lowest_version` to `highest_version` are the protocol versions it speaks. Nothing in it is
    signed: the connection is authenticated by libp2p, and nothing but refusal follows from it.
    """

    lowest_version: U8
    highest_version: U8
    swarm_id: Hash
    swarm_name: Annotated[str, Meta(max_length=MAX_SWARM_NAME_BYTES)]
    software: Annotated[str, Meta(max_length=MAX_SOFTWARE_BYTES)]
    model_label: Label

    @classmethod
    def build(cls, *, swarm_id: bytes, swarm_name: str, software: str, model_label: str) -> Self:
        """This version's greeting; the strings are cut to what peers accept."""
        return _checked(
            cls(
                PROTOCOL_VERSION,
                PROTOCOL_VERSION,
                swarm_id,
                clean_label(swarm_name, MAX_SWARM_NAME_BYTES),
                clean_label(software, MAX_SOFTWARE_BYTES),
                clean_label(model_label),
            )
        )

    def mismatch(self, swarm_id: bytes) -> Reason | None:
        """Why a node of swarm `swarm_id` and this version has nothing to exchange with the peer."""
        if not self.lowest_version <= PROTOCOL_VERSION <= self.highest_version:
            return Reason.WRONG_VERSION
        return None if self.swarm_id == swarm_id else Reason.WRONG_SWARM


def clean_text(text: str) -> str:
    """`text` without what peers refuse: control characters but tab, LF, CR; lone surrogates.

    Then cut to MAX_TEXT_BYTES of UTF-8 at the end of a character. Whoever publishes applies it
    first, so that no output of an honest model is refused.

    >>> clean_text("a\\x00b\\n")
    'ab\\n'
    """
    encoded = _DROPPED_FROM_TEXT.sub("", text).encode()
    return encoded[:MAX_TEXT_BYTES].decode(errors="ignore")


def clean_label(label: str, max_bytes: int = MAX_LABEL_BYTES) -> str:
    """`label` with only its printable ASCII, cut to `max_bytes`."""
    return _REFUSED_IN_LABEL.sub("", label)[:max_bytes]


def violation(message: Rollout | Announcement | Hello) -> str | None:
    """What breaks the bounds that field types cannot hold, or None. Quotes nothing of the peer."""
    if type(message) is Rollout:
        return _rollout_violation(message)
    if type(message) is Announcement:
        return _announcement_violation(message)
    assert type(message) is Hello
    return _hello_violation(message)


def _rollout_violation(rollout: Rollout) -> str | None:
    if rollout.temperature_hundredths > MAX_TEMPERATURE_HUNDREDTHS:
        return "temperature is too high"
    if len(rollout.stats) != STATS_ENTRY_BYTES * len(rollout.texts) + ENDED_BYTES:
        return "stats and texts differ in length"
    if rollout.stats[-1] >> len(rollout.texts):
        return "an unused bit of ended is set"
    if 0 in rollout.token_counts:
        return "a completion has no token"
    if any(len(text.encode()) > MAX_TEXT_BYTES for text in rollout.texts):
        return f"a text is longer than {MAX_TEXT_BYTES} bytes"
    if any(_REFUSED_IN_TEXT.search(text) for text in rollout.texts):
        return "a text holds a control character"
    return _label_violation(rollout.model_label)


def _announcement_violation(announcement: Announcement) -> str | None:
    if len(announcement.packed_items) % ITEM_BYTES:
        return f"items are not a multiple of {ITEM_BYTES} bytes"
    items = announcement.items
    if len({item.rollout_id for item in items}) != len(items):
        return "an id is offered twice"
    if any(not 0 < item.frame_bytes <= MAX_FRAME_BYTES for item in items):
        return "an item's frame size is impossible"
    if len(announcement.packed_held) % HELD_BYTES:
        return f"held ids are not a multiple of {HELD_BYTES} bytes"
    if len(set(announcement.held)) != len(announcement.held):
        return "an id is held twice"
    return _label_violation(announcement.model_label)


def _hello_violation(hello: Hello) -> str | None:
    if hello.lowest_version > hello.highest_version:
        return "lowest version is above highest"
    for label in (hello.swarm_name, hello.software, hello.model_label):
        if problem := _label_violation(label):
            return problem
    return None


def _label_violation(label: str) -> str | None:
    # ASCII, so characters are bytes and the length bound of the field's type is exact.
    return "a label is not printable ASCII" if _REFUSED_IN_LABEL.search(label) else None


def _pack_stats(mean_logp: float, token_count: int) -> bytes:
    if math.isnan(mean_logp):
        raise ValueError("mean log-probability is NaN")
    nats = min(max(-mean_logp, 0.0), MAX_LOGP_THOUSANDTHS / 1000)  # clamps infinities, too
    return _STATS.pack(round(nats * 1000), min(max(token_count, 1), MAX_TOKEN_COUNT))


def _pack_ended(ended: Sequence[bool]) -> bytes:
    return sum(bool(flag) << index for index, flag in enumerate(ended)).to_bytes(ENDED_BYTES)


def _pack_item(item: Item) -> bytes:
    # struct pads and cuts byte strings without a word.
    if len(item.rollout_id) != HASH_BYTES or len(item.task_digest) != TASK_DIGEST_BYTES:
        raise ValueError("an item's id or task digest has the wrong length")
    try:
        return _ITEM.pack(*item)
    except struct.error as error:
        raise ValueError(f"an item is out of range: {error}") from error


def _checked(message: M) -> M:
    """`message` if peers accept it, else `ValueError`: msgspec's constructors check nothing."""
    try:
        checked = msgspec.convert(msgspec.structs.astuple(message), type(message))
    except msgspec.ValidationError as error:
        raise ValueError(f"no valid {type(message).__name__}: {error}") from error
    if problem := violation(checked):
        raise ValueError(f"no valid {type(message).__name__}: {problem}")
    return checked
