"""Provider records one hop away: what a node answers, keeps and believes."""

import anyio
import pytest
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from protocol.names import peer_id
from swarmnode.swarm import multiaddr
from swarmnode.swarm.host import HostError, StreamCut
from swarmnode.swarm.libp2p_providers import (
    MAX_ANSWERED,
    Known,
    Providers,
    ProviderServer,
    Surroundings,
    offer,
    peers_in,
    question,
    read_message,
    search,
    write_message,
)

KEY, OTHER_KEY = b"\x12\x20" + bytes(32), b"\x12\x20" + bytes([1] * 32)
OWN, A, B, C = (peer_id(bytes([i] * 32)) for i in range(4))
ADDRESS = "/ip4/192.0.2.1/tcp/4001"


class Around:
    """A host's surroundings, set by a test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.speakers: list[Known] = []
        self.members: list[Known] = []
        self.known: dict[str, list[str]] = {OWN: [ADDRESS]}

    def providers(self) -> Providers:
        around = Surroundings(
            speakers=lambda: self.speakers,
            members=lambda: self.members,
            addresses=lambda peer: self.known.get(peer, []),
            now=lambda: self.now,
        )
        return Providers(KEY, around)


def providers_in(answer: Message | None) -> list[Known]:
    assert answer is not None
    return peers_in(answer.providerPeers)


def test_who_provided_is_named_to_others_until_its_record_is_old():
    around = Around()
    providers = around.providers()
    assert providers.answer(A, offer(KEY, (A, [ADDRESS]))) is None
    assert providers_in(providers.answer(B, question(KEY))) == [(A, [ADDRESS])]
    assert providers_in(providers.answer(A, question(KEY))) == [], "not to itself"
    around.now = 601.0
    assert providers_in(providers.answer(B, question(KEY))) == []


def test_member_is_named_even_if_it_never_provided():
    around = Around()
    around.members = [(A, [ADDRESS])]
    assert providers_in(around.providers().answer(B, question(KEY))) == [(A, [ADDRESS])]


@pytest.mark.parametrize(
    ("key", "provider"),
    [(OTHER_KEY, (A, [ADDRESS])), (KEY, (B, [ADDRESS])), (KEY, (A, []))],
    ids=["another swarm", "for somebody else", "without an address"],
)
def test_record_is_not_kept(key, provider):
    providers = Around().providers()
    providers.answer(A, offer(key, provider))
    assert providers.stored() == []


def test_records_are_bounded_and_the_oldest_goes():
    providers = Around().providers()
    ids = [peer_id(number.to_bytes(32)) for number in range(1025)]
    for id in ids:
        providers.answer(id, offer(KEY, (id, [ADDRESS])))
    assert [id for id, _ in providers.stored()] == ids[:0:-1]
    assert len(providers_in(providers.answer(A, question(KEY)))) == MAX_ANSWERED


def test_asked_for_itself_a_node_names_itself():
    # go-libp2p-kad-dht takes a node into its table only if it answers this with a peer
    answer = Around().providers().answer(A, search(OWN))
    assert answer is not None
    assert peers_in(answer.closerPeers) == [(OWN, [ADDRESS])]


def test_peer_that_is_sought_comes_first_and_the_asker_not_at_all():
    around = Around()
    around.speakers = [(A, [ADDRESS]), (B, [ADDRESS])]
    around.known = {C: [ADDRESS], A: [ADDRESS]}
    answer = around.providers().answer(A, search(C))
    assert answer is not None
    assert peers_in(answer.closerPeers) == [(C, [ADDRESS]), (B, [ADDRESS])]
    itself = around.providers().answer(A, search(A))
    assert itself is not None
    assert peers_in(itself.closerPeers) == [(B, [ADDRESS])]


@pytest.mark.parametrize("kind", [Message.PUT_VALUE, Message.GET_VALUE])
def test_values_are_neither_kept_nor_answered(kind):
    assert Around().providers().answer(A, Message(type=kind, key=KEY)) is None


def test_senseless_ids_and_addresses_are_skipped():
    entries = [
        Message.Peer(id=b""),
        Message.Peer(id=bytes(43)),
        Message.Peer(id=multiaddr.peer_id_bytes(A), addrs=[b"\xff", multiaddr.to_binary(ADDRESS)]),
    ]
    assert peers_in(entries) == [(A, [ADDRESS])]


class Wire:
    """A `Stream` whose input is given and whose output is kept."""

    def __init__(self, data: bytes = b"", peer: str = A) -> None:
        self.peer, self.address = peer, ""
        self.sent = b""
        self._data = data

    async def read_exactly(self, count: int) -> bytes:
        if len(self._data) < count:
            raise StreamCut("over")
        data, self._data = self._data[:count], self._data[count:]
        return data

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def until_closed(self) -> None: ...


def sent(*messages: Message) -> bytes:
    wire = Wire()
    for message in messages:
        anyio.run(write_message, wire, message)
    return wire.sent


def test_server_answers_several_requests_on_one_stream():
    around = Around()
    server = ProviderServer(around.providers())
    wire = Wire(sent(offer(KEY, (A, [ADDRESS])), search(OWN), question(KEY)))
    anyio.run(server.serve, wire)
    answers = Wire(wire.sent)
    assert anyio.run(read_message, answers).type == Message.FIND_NODE
    assert anyio.run(read_message, answers).type == Message.GET_PROVIDERS


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\x0f", b"\x03\xff\xff\xff"])
def test_server_gives_nonsense_no_answer(data):
    wire = Wire(data)
    anyio.run(ProviderServer(Around().providers()).serve, wire)
    assert wire.sent == b""
    with pytest.raises(HostError):
        anyio.run(read_message, Wire(data))
