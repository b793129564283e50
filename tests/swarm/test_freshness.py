"""Numbers, copies and hidden characters: what is refused or taken out, and what is not."""

import json

import pytest

from protocol.errors import Reason
from protocol.messages import Item, clean_text
from swarmnode.swarm.bounded import RecentIds
from swarmnode.swarm.copies import Copies, normalised, resemblance, sketch
from swarmnode.swarm.flood import FloodGate
from swarmnode.swarm.numbers import Numbers
from swarmnode.swarm.visible import visible

NOW = 1_000_000
A, B, C = (bytes([n] * 32) for n in (1, 2, 3))

# --- numbers ---


def item(number: int, id: int = 0, task: bytes = b"add1") -> Item:
    return Item(bytes([id] * 32), task, number, 300)


def numbers() -> Numbers:
    return Numbers(max_authors=100, lifetime_s=720.0)


def test_numbers_go_on_and_parts_of_one_group_share_theirs() -> None:
    kept = numbers()
    for number in (5, 5, 6, 7, 4):
        assert kept.refuse(A, item(number), NOW, NOW) is None
    assert kept.refuse(A, item(5, task=b"sub1"), NOW + 9, NOW + 9) is None  # of another task


def test_a_number_is_answered_once() -> None:
    kept = numbers()
    assert kept.refuse(A, item(5), NOW, NOW) is None
    assert kept.refuse(A, item(5, id=1), NOW + 30, NOW + 30) is Reason.DUPLICATE
    assert kept.refuse(B, item(5, id=1), NOW + 30, NOW + 30) is None  # another author's


def test_numbers_do_not_jump() -> None:
    kept = numbers()
    assert kept.refuse(A, item(1_000_000), NOW, NOW) is None  # wherever it was before
    assert kept.refuse(A, item(1_004_097), NOW, NOW) is Reason.WRONG_NUMBER
    assert kept.refuse(A, item(1_004_096), NOW, NOW) is None
    assert kept.refuse(A, item(1_000_000 - 1), NOW, NOW) is Reason.WRONG_NUMBER  # 4,097 behind
    assert kept.refuse(A, item(1_000_001), NOW, NOW) is None


def test_silence_allows_as_many_as_a_fast_node_asks_meanwhile() -> None:
    kept = numbers()
    assert kept.refuse(A, item(0), NOW, NOW) is None
    # 4,096 and 64 a second for 100 s.
    assert kept.refuse(A, item(10_497), NOW + 100, NOW + 100) is Reason.WRONG_NUMBER
    assert kept.refuse(A, item(10_496), NOW + 100, NOW + 100) is None


def test_who_starts_anew_is_heard_again_when_its_numbers_are_forgotten() -> None:
    kept = numbers()
    assert kept.refuse(A, item(1_000_000), NOW, NOW) is None
    assert kept.refuse(A, item(0), NOW + 720, NOW + 720) is Reason.WRONG_NUMBER
    assert kept.refuse(A, item(0), NOW + 721, NOW + 721) is None


def test_numbers_are_bounded_and_survive_a_restart() -> None:
    kept = numbers()
    for author in range(300):
        assert kept.refuse(author.to_bytes(32), item(9), NOW, NOW) is None
    assert len(kept) == 100 + 300
    resumed = numbers()
    resumed.load_state(json.loads(json.dumps(kept.state())))
    last = (299).to_bytes(32)
    assert resumed.refuse(last, item(9, id=1), NOW + 1, NOW + 1) is Reason.DUPLICATE
    assert resumed.refuse(last, item(99_999), NOW, NOW) is Reason.WRONG_NUMBER
    assert resumed.state() == kept.state()


@pytest.mark.parametrize(("known", "again"), [({A}, Reason.DUPLICATE), (set(), None)])
def test_new_keys_push_out_nothing_of_a_known_author(
    known: set[bytes], again: Reason | None
) -> None:
    kept = Numbers(100, 720.0, known.__contains__, max_answered=200)
    assert kept.refuse(A, item(5), NOW, NOW) is None
    for author in range(1000, 1300):
        assert kept.refuse(author.to_bytes(32), item(9), NOW, NOW) is None
    assert len(kept) == 100 + 200 + 2 * len(known)
    assert kept.refuse(A, item(5, id=1), NOW + 1, NOW + 1) is again


@pytest.mark.parametrize(("known", "jumped"), [({A}, Reason.WRONG_NUMBER), (set(), None)])
def test_new_keys_free_no_known_author_to_jump(known: set[bytes], jumped: Reason | None) -> None:
    kept = Numbers(100, 720.0, known.__contains__)
    for author in (A, *(n.to_bytes(32) for n in range(1000, 1300))):
        assert kept.refuse(author, item(9), NOW, NOW) is None
    assert kept.refuse(A, item(1_000_000), NOW + 1, NOW + 1) is jumped


def test_who_becomes_known_has_used_what_it_used_before() -> None:
    known: set[bytes] = set()
    kept = Numbers(100, 720.0, known.__contains__)
    assert kept.refuse(A, item(5), NOW, NOW) is None
    for change in (known.add, known.discard):
        change(A)
        assert kept.refuse(A, item(5, id=1), NOW + 1, NOW + 1) is Reason.DUPLICATE
        assert kept.refuse(A, item(99_999), NOW, NOW) is Reason.WRONG_NUMBER
        assert kept.refuse(A, item(6 + len(known)), NOW, NOW) is None
    assert len(kept) == 1 + 3
    known.add(A)
    resumed = Numbers(100, 720.0, known.__contains__)
    resumed.load_state(json.loads(json.dumps(kept.state())))
    assert resumed.refuse(A, item(5, id=1), NOW + 1, NOW + 1) is Reason.DUPLICATE
    assert resumed.refuse(A, item(7, id=1), NOW + 1, NOW + 1) is Reason.DUPLICATE
    assert resumed.refuse(A, item(99_999), NOW, NOW) is Reason.WRONG_NUMBER


# --- copies ---

LONG = (
    "There are 12 apples in the basket and Mary takes 5 of them, so we subtract: 12 - 5 = 7. "
    "Then she gives back 2, which makes 7 + 2 = 9. <answer>9</answer>"
)
OTHER = (
    "First count the legs: a spider has eight of them and a bird two, so three spiders and four "
    "birds have 24 + 8 = 32 legs in all. <answer>32</answer>"
)
PROMPT = "How many apples are in the basket?"


def taken(*texts: str, prompt: str = PROMPT) -> Copies:
    kept = Copies()
    kept.note(A, prompt, texts)
    return kept


def test_a_text_of_another_author_is_a_copy_for_whatever_question() -> None:
    kept = taken(LONG)
    assert kept.is_copy(B, PROMPT, [LONG])
    assert kept.is_copy(B, "another question", [LONG])
    assert not kept.is_copy(B, PROMPT, [OTHER])
    assert not kept.is_copy(A, PROMPT, [LONG])  # a part of the same group
    assert not Copies().is_copy(B, PROMPT, [LONG])


@pytest.mark.parametrize(
    "changed",
    [
        LONG.upper(),
        LONG.replace(" ", "\n  "),
        LONG.replace(",", ";"),
        LONG + " .",
        LONG.replace("Mary", "Ｍary"),
        "Well. " + LONG,
        LONG.replace("basket", "box"),
    ],
)
def test_a_text_with_changes_of_form_is_a_copy_for_the_same_question(changed: str) -> None:
    assert changed != LONG
    assert taken(LONG).is_copy(B, PROMPT, [changed])


def test_the_form_alone_is_no_copy() -> None:
    """Honest models of one kind answer questions of one kind with one form."""
    same_form = LONG.replace("12", "31").replace("5", "8").replace("7", "23").replace("9", "25")
    assert not taken(LONG).is_copy(B, "another question", [same_form])


def test_short_texts_tell_nothing() -> None:
    assert not taken("<answer>9</answer>").is_copy(B, PROMPT, ["<answer>9</answer>"] * 8)
    assert not taken(LONG).is_copy(B, PROMPT, [LONG, "9", "9"])


def test_half_of_the_texts_decide() -> None:
    kept = taken(LONG)
    assert kept.is_copy(B, PROMPT, [LONG, OTHER])
    assert not kept.is_copy(B, PROMPT, [LONG, OTHER, OTHER + " And that is all that is to say."])


def test_copies_are_bounded() -> None:
    kept = Copies()
    for number in range(2100):
        kept.note(A, f"question {number}", [f"{number} {LONG}"])
    assert len(kept) == 2100 + 2048
    for number in range(100):
        kept.note(A, "one", [f"{number} and {OTHER}"])
    assert len(kept) == 2200 + 2047 + 16


def test_normalised_leaves_letters_and_digits() -> None:
    assert normalised(" The — ANSWER:\t４２!\n") == "the answer 42"


def test_resemblance_is_the_share_of_common_triples() -> None:
    # abc bcd cde and abc bcd cdx: 2 of 4.
    assert resemblance(sketch("a b c d e"), sketch("a b c d x")) == 0.5


# --- hidden characters ---


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("4\u202e2\u202c", "42"),
        ("a\u2066b\u2069", "ab"),
        ("a\u200bb\u2060c\ufeff", "abc"),
        ("a" + "".join(chr(0xE0000 + ord(c)) for c in "secret") + "b", "ab"),
        ("a\U000e0100\U000e01efb", "ab"),
        ("sof\u00adt", "soft"),
        ("a\u200d\u200c\u200d\u200cb", "a\u200db"),
    ],
)
def test_hidden_characters_are_taken_out(hidden: str, seen: str) -> None:
    assert visible(hidden) == seen
    assert visible(seen) == seen


@pytest.mark.parametrize(
    "text",
    [
        "plain\ttext\r\n",
        "café 日本 \ufffd",  # U+FFFD is what byte-level tokenizers write for half a character
        "👩\u200d👩\u200d👧 ❤\ufe0f",
        "می\u200cخواهم",  # Persian needs its joiner
        "שלום \u200f(12)",
        "",
    ],
)
def test_what_scripts_and_emoji_need_stays(text: str) -> None:
    assert visible(text) == text
    assert clean_text(text) == text


# --- floods of gossip ---


def test_a_publisher_is_heard_so_often_and_then_is_a_flooder() -> None:
    gate = FloodGate()
    assert sum(gate.allows("a", 0.0) for _ in range(300)) == 30
    assert not gate.is_flooder("a")
    assert not gate.allows("a", 0.0)
    assert gate.is_flooder("a")
    assert not gate.is_flooder("b")
    assert gate.allows("a", 10.0)
    assert not gate.is_flooder("a")


def test_a_flood_of_new_keys_does_not_silence_who_was_heard_before() -> None:
    gate = FloodGate()
    assert gate.allows("honest", 0.0)
    for window in range(1, 45):
        heard = [gate.allows(f"{window} {n}", 10.0 * window) for n in range(300)]
        assert sum(heard) == 100
        assert gate.allows("honest", 10.0 * window + 5)
    assert len(gate) <= 2 * 4096


def test_without_the_newcomers_budget_new_keys_fill_what_there_is() -> None:
    gate = FloodGate(newcomers=10**9)
    assert all(gate.allows(str(n), 0.0) for n in range(10_000))
    assert len(gate) <= 2 * 4096


def test_what_was_added_long_ago_is_not_fresh_even_if_nothing_came_since() -> None:
    ids = RecentIds(max_items=9, lifetime_s=60.0)
    ids.add(b"a", 0.0)
    assert ids.is_fresh(b"a", 60.0)
    assert not ids.is_fresh(b"a", 61.0)
    assert not ids.is_fresh(b"b", 0.0)
