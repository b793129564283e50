"""The gate before py-libp2p's gossip: what passes, what is left out, who is at fault."""

from typing import Any

import pytest
from hostile_peer import KINDS, SWARM, TOPIC, message
from libp2p.crypto.rsa import create_new_key_pair as create_rsa_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX

from swarmnode.swarm.libp2p_gossip import Admitted, Gate, Malformed, Queues
from swarmnode.swarm.multiaddr import read_varint

OTHER_TOPIC = "/elsewhere"
KNOWN_ID = bytes(46)  # a message's id: 38 bytes of publisher, 8 of sequence number


def gate(**changes: Any) -> Gate:
    made = Gate(SWARM)
    made.open(TOPIC, changes.get("admits", lambda publisher, data: True))
    return made


def control(**entries: Any) -> rpc_pb2.RPC:
    return rpc_pb2.RPC(control=rpc_pb2.ControlMessage(**entries))


def test_signed_message_is_admitted_once_with_its_publisher():
    one, made = gate(), message()
    admitted = one.admitted("a", made, 0.0)
    assert admitted == Admitted(str(ID(made.from_id)), made)
    assert one.admitted("b", made, 1.0) is None, "the same from another neighbour"


def test_refused_message_is_asked_about_once_and_not_passed_on():
    asked: list[bytes] = []

    def admits(publisher: str, data: bytes) -> bool:
        asked.append(data)
        return False

    one, made = gate(admits=admits), message()
    assert [one.admitted(link, made, 0.0) for link in "ab"] == [None, None]
    assert asked == [b"hostile"]


def test_forged_copy_that_comes_first_does_not_shut_out_the_real_message():
    one, made = gate(), message()
    forged = rpc_pb2.Message.FromString(made.SerializeToString())
    forged.data = b"not what was signed"
    with pytest.raises(Malformed):
        one.admitted("a", forged, 0.0)
    assert one.admitted("b", made, 0.0) is not None


@pytest.mark.parametrize("kind", ["no protobuf", "bad from", "bad key", "forged"])
def test_what_no_honest_node_passes_on_is_its_senders_fault(kind):
    one, data = gate(), KINDS[kind]
    _, start = read_varint(data, 0)

    def take() -> None:
        for made in one.parse(data[start:]).publish:
            one.admitted("a", made, 0.0)

    with pytest.raises(Malformed):
        take()


def test_message_of_an_rsa_publisher_is_left_out_but_nobodys_fault():
    # An honest p2pd passes it on: its signature holds.
    keys = create_rsa_key_pair()
    made = rpc_pb2.Message(
        from_id=ID.from_pubkey(keys.public_key).to_bytes(),
        data=b"x",
        seqno=bytes(8),
        topicIDs=[TOPIC],
    )
    made.signature = keys.private_key.sign(
        PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString()
    )
    made.key = keys.public_key.serialize()
    assert gate().admitted("a", made, 0.0) is None


def test_message_of_another_topic_is_left_out_unchecked():
    made = message()
    del made.topicIDs[:]
    made.topicIDs.append(OTHER_TOPIC)
    assert gate().admitted("a", made, 0.0) is None


def test_neighbour_that_brings_too_much_is_not_listened_to_for_a_while():
    one, made = gate(), message(data=b"forged")
    for number in range(3000):  # forged, so that nothing is remembered of them
        made.seqno = number.to_bytes(8)
        with pytest.raises(Malformed):
            one.admitted("busy", made, 0.0)
    assert one.admitted("busy", message(), 9.0) is None
    assert one.admitted("other", message(), 9.0) is not None
    assert one.admitted("busy", message(), 10.0) is not None


def test_cleaned_rpc_keeps_what_concerns_the_topic():
    rpc = control(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[KNOWN_ID])],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[KNOWN_ID])],
        graft=[rpc_pb2.ControlGraft(topicID=TOPIC)],
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=60)],
    )
    rpc.subscriptions.add(subscribe=True, topicid=TOPIC)
    assert gate().cleaned("a", rpc, []) == rpc


def test_cleaned_rpc_leaves_out_other_topics_exchanged_peers_and_records():
    rpc = control(
        ihave=[rpc_pb2.ControlIHave(topicID=OTHER_TOPIC, messageIDs=[KNOWN_ID])],
        graft=[rpc_pb2.ControlGraft(topicID=OTHER_TOPIC)],
        prune=[
            rpc_pb2.ControlPrune(topicID=OTHER_TOPIC),
            rpc_pb2.ControlPrune(topicID=TOPIC, peers=[rpc_pb2.PeerInfo(peerID=b"x")]),
        ],
        idontwant=[rpc_pb2.ControlIDontWant(messageIDs=[KNOWN_ID])],
    )
    rpc.subscriptions.add(subscribe=True, topicid=OTHER_TOPIC)
    rpc.senderRecord = b"whatever"
    assert gate().cleaned("a", rpc, []) == control(
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=0)]
    )


def test_topics_that_this_node_might_come_to_listen_to_are_remembered_to_a_limit():
    rpc = rpc_pb2.RPC()
    for number in range(100):
        rpc.subscriptions.add(subscribe=True, topicid=f"{TOPIC}/128/{number}")
    one = gate()
    assert len(one.cleaned("a", rpc, []).subscriptions) == 64
    assert len(one.cleaned("b", rpc, []).subscriptions) == 64, "each neighbour has its own"
    leave = rpc_pb2.RPC()
    leave.subscriptions.add(subscribe=False, topicid=f"{TOPIC}/128/1")
    assert one.cleaned("a", leave, []) == leave
    late = rpc_pb2.RPC()
    late.subscriptions.add(subscribe=True, topicid=f"{TOPIC}/128/99")
    assert one.cleaned("a", late, []) == late


def test_topics_of_a_neighbour_are_known_until_it_is_gone():
    one = gate()
    told = rpc_pb2.RPC()
    told.subscriptions.add(subscribe=True, topicid=TOPIC)
    for link in "ab":
        one.cleaned(link, told, [])
    one.forget_all_but({"a"})
    assert (one.topics_of("a"), one.topics_of("b")) == ({TOPIC}, frozenset())


def test_queue_that_another_takes_the_place_of_is_closed():
    queues, peer, first, second = Queues(), ID(b"peer"), RpcQueue(), RpcQueue()
    queues[peer] = first
    queues[peer] = second
    assert (first.closed, second.closed, queues[peer]) == (True, False, second)


def test_messages_of_a_shard_pass_while_it_is_listened_to():
    one, topic = gate(), f"{TOPIC}/8/1"
    first, second = message(topic=topic), message(topic=topic)
    assert one.admitted("a", first, 0.0) is None
    one.open(topic, lambda publisher, data: True)
    assert one.admitted("a", first, 0.0) is not None
    one.close(topic)
    assert one.admitted("a", second, 0.0) is None


def test_repeated_ids_are_asked_for_and_answered_once():
    many = [KNOWN_ID] * 1000 + [b"short"]
    rpc = control(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=many)] * 2,
        iwant=[rpc_pb2.ControlIWant(messageIDs=many)] * 2,
    )
    assert gate().cleaned("a", rpc, []) == control(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[KNOWN_ID])],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[KNOWN_ID])],
    )


def test_what_was_seen_is_not_asked_for_again():
    one, made = gate(), message()
    one.admitted("a", made, 0.0)
    offer = rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[made.from_id + made.seqno])
    assert one.cleaned("a", control(ihave=[offer]), []) == rpc_pb2.RPC()


def test_topic_that_is_no_text_is_another_topic():
    # Field numbers of rpc.proto: a subscription (1) with its topic (2), a message (2) with its
    # topic (4), a control message (3) with a graft (3) of a topic (1); 0xff is no UTF-8.
    body = b"\x0a\x03\x12\x01\xff\x12\x03\x22\x01\xff\x1a\x05\x1a\x03\x0a\x01\xff"
    one = gate()
    rpc = one.parse(body)
    assert [one.admitted("a", made, 0.0) for made in rpc.publish] == [None]
    assert one.cleaned("a", rpc, []) == rpc_pb2.RPC()
