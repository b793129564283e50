"""Hashes and names, each derived a second time by hand from SPEC.md section 4."""

import hashlib
import json

import make_vectors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import names

AUTHOR = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
OTHER = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SWARM = bytes(range(32))
seeded = settings(derandomize=True, deadline=None, database=None)


def test_names_follow_the_spec() -> None:
    vector = json.loads((make_vectors.FOLDER / "names.json").read_text())
    swarm = hashlib.sha256(b"swarmnode/swarm\0vectors").digest()
    task = hashlib.sha256(b"swarmnode/task\0chain_sum").digest()[:4]
    seed_input = b"swarmnode/question\0" + swarm + AUTHOR + task + b"\x00\x00\x00\x07"
    place = hashlib.sha256(b"swarmnode/shard\0" + AUTHOR).digest()
    of_8 = place[0] >> 5
    shard_key = hashlib.sha256(b"swarmnode/discovery\0" + swarm + b"/8/%d" % of_8).hexdigest()
    discovery = hashlib.sha256(b"swarmnode/discovery\0" + swarm).hexdigest()
    assert vector == {
        "manifest": b"vectors".hex(),
        "swarm_id": swarm.hex(),
        "task": b"chain_sum".hex(),
        "task_digest": task.hex(),
        "author": AUTHOR.hex(),
        "peer_id": "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV",
        "question_number": 7,
        "question_seed": int(hashlib.sha256(seed_input).hexdigest()[:8], 16),
        "announcement_topic": f"/swarmnode/1/{swarm.hex()}/announcements",
        "shard_of_8": of_8,
        "shard_of_65536": int.from_bytes(place[:2], "big"),
        "rank_times_2_48": int.from_bytes(place[2:8], "big"),
        "shard_topic": f"/swarmnode/1/{swarm.hex()}/announcements/8/{of_8}",
        "shard_discovery_key": shard_key,
        "fetch_protocol": f"/swarmnode/1/{swarm.hex()}/fetch",
        "peers_protocol": f"/swarmnode/1/{swarm.hex()}/peers",
        "lan_service": f"_p2p-{discovery[:32]}._udp.local",
        "hello_protocol": "/swarmnode/hello",
        "discovery_key": discovery,
        "discovery_cid": "01551220" + discovery,
    }


def test_peer_id_is_the_one_go_libp2p_gives_the_key() -> None:
    # Printed by go-libp2p (p2pd of hivemind 1.1.12) for the secret key of RFC 8032, test 1.
    assert names.peer_id(AUTHOR) == "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"


def test_peer_id_of_the_libp2p_specification_holds_a_key() -> None:
    # The example in libp2p's peer-ids specification.
    example = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    assert names.peer_id(names.public_key_of(example)) == example


@given(st.binary(min_size=32, max_size=32))
@seeded
def test_peer_ids_round_trip(public_key: bytes) -> None:
    text = names.peer_id(public_key)
    assert text.startswith("12D3KooW")
    assert len(text) == 52
    assert names.public_key_of(text) == public_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # RSA: a hash, no key
        "bafzaajaiaejcal72gwuz2or47oyxxn6b3rkwdmmkrxgkjxzy3rqt5kczyn7lcm3l",  # CID form
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5S0",  # 0 is not base58
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5S",
        "z" * 52,
        "1" * 52,
        "1" * 100_000,
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5S\u0661",
    ],
)
def test_what_holds_no_ed25519_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base58"):
        names.public_key_of(text)


@given(st.text(max_size=60))
@seeded
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"base58"):
        names.public_key_of(text)


def test_question_seed_depends_on_every_part() -> None:
    task = b"task"
    seeds = {
        names.question_seed(SWARM, AUTHOR, task, 7),
        names.question_seed(SWARM, OTHER, task, 7),
        names.question_seed(bytes(32), AUTHOR, task, 7),
        names.question_seed(SWARM, AUTHOR, b"kast", 7),
        names.question_seed(SWARM, AUTHOR, task, 8),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_two_authors_do_not_ask_the_same_questions() -> None:
    own, other = (
        {names.question_seed(SWARM, author, b"task", n) for n in range(1000)}
        for author in (AUTHOR, OTHER)
    )
    assert not own & other  # by chance 1000 × 1000 / 2**32 = 0.0002 seeds would be shared


@pytest.mark.parametrize(
    "arguments",
    [
        (bytes(31), AUTHOR, b"task", 1),
        (SWARM, bytes(33), b"task", 1),
        (SWARM, AUTHOR, b"tasks", 1),
        (SWARM, AUTHOR, b"task", -1),
        (SWARM, AUTHOR, b"task", 2**32),
    ],
)
def test_question_seed_refuses_parts_of_wrong_size(arguments: tuple) -> None:
    # Otherwise bytes could move from one part to the next and give the same hash.
    with pytest.raises(ValueError, match="must be"):
        names.question_seed(*arguments)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 15))
@seeded
def test_a_shard_is_one_half_of_the_shard_it_is_part_of(author: bytes, power: int) -> None:
    part, whole = names.shard_of(author, 2 ** (power + 1)), names.shard_of(author, 2**power)
    assert part.number // 2 == whole.number


@given(st.binary(min_size=32, max_size=32), st.integers(0, 16))
@seeded
def test_a_topic_names_its_shard(author: bytes, power: int) -> None:
    shard = names.shard_of(author, 2**power)
    assert names.shard_of_topic(SWARM, names.announcement_topic(SWARM, shard)) == shard


@pytest.mark.parametrize(
    "end",
    [
        "/8",
        "/8/8",
        "/8/-1",
        "/08/1",
        "/8/01",
        "/7/1",
        "/1/0",
        "/131072/1",
        "/8/1/",
        "/8/\u0661",
        "8/1",
    ],
)
def test_other_topics_are_of_no_shard(end: str) -> None:
    with pytest.raises(ValueError, match=r"topic|no shard"):
        names.shard_of_topic(SWARM, names.announcement_topic(SWARM) + end)


@pytest.mark.parametrize("shard", [(0, 0), (3, 1), (8, 8), (8, -1), (2**17, 0)])
def test_no_shard_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no shard"):
        names.announcement_topic(SWARM, names.Shard(*shard))
