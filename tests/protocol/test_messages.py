"""Messages: the promised sizes, and that honest nodes are never refused."""

import make_vectors
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import any_text, repeated_text, rollouts

from protocol import codec
from protocol.envelope import COMPRESSED_ROLLOUT, open_frame, seal
from protocol.errors import Reason
from protocol.limits import HEADER_BYTES, MAX_TEXT_BYTES, ROLLOUT_OVERHEAD_BYTES, U32_MAX
from protocol.messages import (
    Announcement,
    Hello,
    Item,
    Rollout,
    clean_label,
    clean_text,
    violation,
)

KEY, SWARM = bytes(range(32)), bytes(32)
seeded = settings(derandomize=True, deadline=None, database=None)


def largest_rollout(texts: list[str]) -> Rollout:
    """Every field beside the texts in its longest form."""
    return Rollout.build(
        task_digest=b"\xff" * 4,
        seed=U32_MAX,
        created=U32_MAX,
        policy_version=U32_MAX,
        temperature=10.0,
        model_label="x" * 16,
        texts=texts,
        mean_logps=[-65.535] * len(texts),
        token_counts=[65_535] * len(texts),
        ended=[True] * len(texts),
    )


def small_rollout(**changes: object) -> Rollout:
    fields: dict = {
        "task_digest": b"task",
        "seed": 1,
        "created": 1_780_000_000.9,
        "policy_version": 7,
        "temperature": 0.7,
        "model_label": "demo",
        "texts": ["42"],
        "mean_logps": [-0.731],
        "token_counts": [5],
    }
    fields |= changes
    return Rollout.build(**{"ended": [True] * len(fields["texts"])} | fields)


def overhead(rollout: Rollout) -> int:
    """Bytes of the uncompressed frame beyond the texts; the frame as sealed is never larger."""
    frame_bytes = HEADER_BYTES + len(codec.encode(rollout))
    assert len(seal(rollout, KEY, SWARM).frame) <= frame_bytes
    return frame_bytes - sum(len(text.encode()) for text in rollout.texts)


def test_largest_rollout_costs_200_bytes_beyond_its_texts() -> None:
    # Header 98; array 1, digest 6, three u32 15, temperature 3, label 17,
    # stats 2 + 32 + 1 = 35, array of texts 1, eight str 16 heads 24: 102.
    assert overhead(largest_rollout(["a" * 256] * 8)) == 98 + 102


def test_rollout_without_repetition_travels_plain() -> None:
    rollout = small_rollout()
    frame = seal(rollout, KEY, SWARM).frame
    assert frame[1] == 1
    assert frame[HEADER_BYTES:] == codec.encode(rollout)


def test_ended_travels_as_one_bit_per_text() -> None:
    ended = [True, False, False, True, False]
    rollout = small_rollout(
        texts=["a"] * 5, mean_logps=[0.0] * 5, token_counts=[1] * 5, ended=ended
    )
    assert rollout.stats[-1] == 0b01001
    assert rollout.ended == tuple(ended)
    assert largest_rollout(["a"] * 8).stats[-1] == 0xFF


@given(rollouts() | rollouts(repeated_text))
@seeded
def test_any_rollout_costs_at_most_the_promised_overhead(rollout: Rollout) -> None:
    assert overhead(rollout) <= ROLLOUT_OVERHEAD_BYTES


@given(st.integers(1, 8), st.sampled_from([0, 31, 32, 255, 256, 4000, 32768]))
@seeded
def test_overhead_holds_around_every_length_form(count: int, length: int) -> None:
    assert overhead(largest_rollout(["a" * length] * count)) <= ROLLOUT_OVERHEAD_BYTES


def test_announcement_of_eight_rollouts_is_at_most_500_bytes() -> None:
    # Header 98; array 1, three u32 15, label 17, column 3 + 8 × 44 = 355, nothing held 2.
    items = [Item(bytes([n] * 32), b"\xff" * 4, U32_MAX, 262_344) for n in range(8)]
    announcement = Announcement.build(
        round=U32_MAX,
        created=U32_MAX,
        policy_version=U32_MAX,
        model_label="x" * 16,
        items=items,
    )
    assert len(seal(announcement, KEY, SWARM).frame) == 98 + 1 + 15 + 17 + 355 + 2 == 488
    assert announcement.items == tuple(items)


def test_fullest_announcement_fits_its_limit() -> None:
    items = [Item(bytes([n] * 32), b"task", 1, 1) for n in range(64)]
    full = Announcement.build(
        round=U32_MAX,
        created=U32_MAX,
        policy_version=U32_MAX,
        model_label="x" * 16,
        items=items,
        held=[bytes([n] * 32) for n in range(16)],
    )
    sealed = seal(full, KEY, SWARM)
    # Beside the header: array 1, three u32 15, label 17, 3 + 64 × 44 of items, 2 + 16 × 4 held.
    assert len(sealed.frame) == 98 + 1 + 15 + 17 + 2819 + 66 == 3016
    assert open_frame(sealed.frame, SWARM).message == full
    assert full.held == tuple(bytes([n] * 4) for n in range(16))


def test_largest_frame_opens() -> None:
    texts = ["€" * (MAX_TEXT_BYTES // 3) + "xx"] * 8  # 10,922 × 3 + 2 = 32,768 bytes
    rollout = largest_rollout(texts)
    sealed = seal(rollout, KEY, SWARM)
    assert sealed.frame[1] == COMPRESSED_ROLLOUT
    plain = make_vectors.frame(codec.encode(rollout), swarm_id=SWARM)
    assert len(plain) == 262_144 + 200
    assert open_frame(plain, SWARM).message == rollout
    assert open_frame(sealed.frame, SWARM).message == rollout


def test_build_rounds_and_reads_back() -> None:
    rollout = small_rollout(
        temperature=0.706,
        mean_logps=[-0.73149, -0.0016, -1e9],
        token_counts=[0, 5, 10**9],
        texts=["a", "b", "c"],
    )
    assert rollout.created == 1_780_000_000  # whole seconds, cut
    assert rollout.temperature == 0.71
    assert rollout.mean_logps == (-0.731, -0.002, -65.535)
    assert rollout.token_counts == (1, 5, 65_535)


def test_mean_logp_above_zero_and_infinite_saturate() -> None:
    rollout = small_rollout(mean_logps=[0.5, float("-inf")], texts=["a", "b"], token_counts=[1, 1])
    assert rollout.mean_logps == (0.0, -65.535)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean_logps": [float("nan")]},
        {"texts": []},
        {"texts": [], "mean_logps": [], "token_counts": []},
        {"texts": ["a"] * 9, "mean_logps": [0.0] * 9, "token_counts": [1] * 9},
        {"token_counts": [1, 2]},
        {"ended": []},
        {"ended": [True, False]},
        {"seed": 2**32},
        {"seed": -1},
        {"policy_version": True},
        {"temperature": 10.01},
        {"temperature": -1.0},
        {"task_digest": b"five5"},
    ],
)
def test_build_refuses_what_is_no_rollout(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        small_rollout(**changes)


@pytest.mark.parametrize(
    "item",
    [
        Item(bytes(32), b"task", 2**32, 100),
        Item(bytes(32), b"task", -1, 100),
        Item(bytes(32), b"task", 1, 0),
        Item(bytes(32), b"task", 1, 262_345),
        Item(bytes(31), b"task", 1, 100),
        Item(bytes(33), b"task", 1, 100),
        Item(bytes(32), b"tas", 1, 100),
    ],
)
def test_build_refuses_impossible_items(item: Item) -> None:
    with pytest.raises(ValueError, match=r"item"):
        Announcement.build(round=1, created=1, policy_version=1, model_label="", items=[item])


def test_build_refuses_an_id_twice() -> None:
    item = Item(bytes(32), b"task", 1, 100)
    with pytest.raises(ValueError, match="twice"):
        Announcement.build(round=1, created=1, policy_version=1, model_label="", items=[item] * 2)


@given(any_text)
@seeded
def test_cleaned_text_is_never_refused(text: str) -> None:
    assert violation(small_rollout(texts=[text])) is None
    assert clean_text(clean_text(text)) == clean_text(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Z", "M"))))
@seeded
def test_cleaning_leaves_ordinary_text_alone(text: str) -> None:
    assert clean_text(text) == text
    assert clean_text(text + "\t\r\n") == text + "\t\r\n"


def test_cleaning_drops_exactly_the_control_characters() -> None:
    # 65 characters of category Cc (C0, delete, C1) less tab, line feed, carriage return: 62.
    every = "".join(map(chr, range(0x100)))
    kept = clean_text(every)
    assert len(every) - len(kept) == 62
    assert not set(kept) & set(map(chr, [*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, 0x9B]))
    assert clean_text("a\ud800b\udfffc") == "abc"


def test_cleaning_cuts_between_characters() -> None:
    # 32,768 = 3 × 10,922 + 2: the character that does not fit whole is dropped whole.
    assert clean_text("€" * 20_000) == "€" * 10_922
    assert clean_text("🧮" * 20_000) == "🧮" * 8_192


def test_text_is_refused_where_the_sender_does_not_clean() -> None:
    dirty = msgspec.structs.replace(small_rollout(), texts=("\x1b[2J",))
    assert violation(dirty) == "a text holds a control character"


def test_label_keeps_printable_ascii() -> None:
    assert clean_label("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5"
    assert clean_label("a\tb\x7fü ~") == "ab ~"


def test_hello_says_why_two_nodes_do_not_talk() -> None:
    hello = Hello.build(
        swarm_id=SWARM, swarm_name="n" * 99, software="s" * 99, model_label="m" * 99
    )
    assert hello.mismatch(SWARM) is None
    assert hello.mismatch(bytes([1] * 32)) is Reason.WRONG_SWARM
    later = msgspec.structs.replace(hello, lowest_version=2, highest_version=3)
    assert later.mismatch(SWARM) is Reason.WRONG_VERSION
    both = msgspec.structs.replace(hello, highest_version=3)
    assert both.mismatch(SWARM) is None
