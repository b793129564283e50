"""What a stranger's bytes go through, one function per layer, for any fuzzer.

    frame → envelope → message → question → tokens, and what stands beside them: streams, block
    lengths, names, packets of the local network, the exchange as a whole, answers

A target lets pass what its layer may raise (`ProtocolError` and no other) and asserts what else
must hold: canonical form, ids that do not depend on compression, no control token from any text.
What escapes is a finding. Inputs are shaped only as far as needed to come past a signature: the
`signed` targets sign what the fuzzer made, since no fuzzer finds a signature by chance.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from nacl.signing import SigningKey

from protocol import codec, compression, envelope, names, private
from protocol.errors import ProtocolError
from protocol.limits import (
    BLOCK_HEADER_BYTES,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_ROLLOUT_BODY_BYTES,
    PROTOCOL_VERSION,
)
from protocol.messages import Announcement, Item, Kind, Rollout
from swarmnode.config import SharingSettings
from swarmnode.manifest import Manifest, Task
from swarmnode.questions import open_tasks
from swarmnode.rollout import Question
from swarmnode.swarm import mdns
from swarmnode.swarm.exchange import Exchange
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.multiaddr import to_binary, to_text
from swarmnode.swarm.transport import Announced, AnyEvent, Fetched
from swarmnode.tasks import answer, compare, gym

# That of the vectors, so that their signatures are good here.
SWARM = bytes.fromhex("3662bdedb4de2357d76777c2a31b2505f4eb629e22cc7e4ade7c9f2caaae938b")
SEED = bytes([3]) * 32
_KEY = SigningKey(SEED)
AUTHOR = bytes(_KEY.verify_key)
PEER = names.peer_id(AUTHOR)
NOW = 1_780_000_000.0
FRAME_KEY = bytes([5]) * 32

Target = Callable[[bytes], None]


def frame(data: bytes) -> None:
    """The whole frame is the stranger's, signature and all."""
    try:
        opened = envelope.open_frame(data, SWARM)
    except ProtocolError:
        return
    assert envelope.read_unverified(data) == (opened.author, opened.message)


def message(data: bytes) -> None:
    """First byte: the kind. The rest: the body of a frame whose signature was found good."""
    kind = Kind.ANNOUNCEMENT if data[:1] > b"\x7f" else Kind.ROLLOUT
    decoded = _unverified(kind, data[1:])
    if decoded is not None:
        assert codec.encode(decoded) == data[1:]
        _read(decoded)


def compressed(data: bytes) -> None:
    """A frame's compressed body, with the format's first bytes in front or as it is."""
    body = data[1:] if data[:1] > b"\x7f" else b"\x28\xb5\x2f\xfd" + data[1:]
    decoded = _unverified(envelope.COMPRESSED_ROLLOUT, body)
    if decoded is not None:
        plain = compression.decompress(body, MAX_ROLLOUT_BODY_BYTES)
        assert len(body) < len(plain) <= MAX_ROLLOUT_BODY_BYTES
        assert codec.encode(decoded) == plain


def streams(data: bytes) -> None:
    """First byte: what the stream carries. The rest: its bytes."""
    kind, rest = data[:1], data[1:]
    reader = _STREAMS[kind[0] % len(_STREAMS)] if kind else _STREAMS[0]
    try:
        reader(rest)
    except ProtocolError:
        return


def local(data: bytes) -> None:
    """First byte: a packet of the local network, a binary or a text address, a topic, a peer id."""
    kind, rest = (data[0] % 5 if data else 0), data[1:]
    if kind == 0:
        mdns.parse(rest, _SERVICE)
        return
    text = rest.decode("latin-1")
    try:
        if kind == 1:
            to_text(rest)
        elif kind == 2:
            to_binary(text)
        elif kind == 3:
            names.shard_of_topic(SWARM, text)
        else:
            assert names.peer_id(names.public_key_of(text)) == text
    except ValueError:
        return


def decrypted(data: bytes) -> None:
    """What a member of a private swarm gets from anyone."""
    try:
        private.decrypt(data, FRAME_KEY)
    except ProtocolError:
        return
    raise AssertionError("opened what no member made")


def signed(data: bytes) -> None:
    """A body of the stranger's, well signed, plain and compressed: judged alike."""
    if not data:
        return
    kind = Kind.ANNOUNCEMENT if data[0] > 0x7F else Kind.ROLLOUT
    made = sealed(kind, data[1:])
    try:
        opened = envelope.open_frame(made, SWARM)
    except ProtocolError:
        return
    assert opened.author == AUTHOR
    signed_bytes = envelope.signed_bytes(kind, SWARM, AUTHOR, data[1:])
    assert opened.id == hashlib.sha256(signed_bytes).digest()
    if (smaller := compression.compress(data[1:])) is not None and kind is Kind.ROLLOUT:
        header = bytes((PROTOCOL_VERSION, envelope.COMPRESSED_ROLLOUT)) + made[2:HEADER_BYTES]
        assert envelope.open_frame(header + smaller, SWARM) == opened


def answers(data: bytes) -> None:
    """First byte: the rule; the rest: expected answer, NUL, the completion."""
    if not data:
        return
    rule = list(compare.RULES)[data[0] % len(compare.RULES)]
    expected, _, text = data[1:].decode(errors="replace").partition("\0")
    metadata = {"compare": rule, "tolerance": "0.01"}
    if not compare.readable(expected, metadata):
        expected = {"decimal": "1.5", "fraction": "1/2"}.get(rule, "12")
    for form in ("whole", "tag"):
        given = answer.extract(text, form)
        if given is not None:
            assert compare.is_right(given, expected, metadata) in (True, False)


class Wire(MemoryTransport):
    """A network on which whatever is put into `arrived` came, and nobody answers by himself."""

    def __init__(self, peer_id: str) -> None:
        super().__init__(Hub(), peer_id)
        self.arrived: list[AnyEvent] = []
        self.asked: list[bytes] = []

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        self.asked += ids

    def poll(self) -> list[AnyEvent]:
        arrived, self.arrived = self.arrived, []
        return arrived


class Chain:
    """A node's exchange between a stranger who signs well and this node's questions and tokens."""

    def __init__(self) -> None:
        tasks = [Task(name, f"reasoning_gym:{name}") for name in sorted(gym.ALLOWED)]
        self.tasks = open_tasks(Manifest("fuzz", tasks=tuple(tasks)))
        self.digests = {self.tasks.digest(name): name for name in self.tasks.names}
        self._rng = Random(7)
        self._exchange: Exchange | None = None
        self._wire = Wire(PEER)
        self._count = 0

    def exchange(self, data: bytes) -> None:
        """First byte: what is lied about. The rest: a body, well signed, announced and fetched."""
        exchange = self._fresh()
        if not data:
            return
        how, body = data[0], data[1:]
        kind = Kind.ANNOUNCEMENT if how & 1 else Kind.ROLLOUT
        made = body if how & 2 else sealed(kind, body)
        if kind is Kind.ANNOUNCEMENT:
            self._wire.arrived.append(Announced(PEER, made))
        else:
            self._wire.arrived.append(Announced(PEER, self._announced(body, made, how)))
        exchange.listen(self._rng, NOW)
        exchange.request(8, self._rng, NOW)
        for id in self._wire.asked[:4]:
            self._wire.arrived.append(Fetched(PEER, id, made))
        self._wire.asked.clear()
        for arrival in exchange.collect(round=1, now=NOW):
            assert not arrival.question.held_out
            assert len(arrival.completions) == len(arrival.rollout.texts)
        assert sum(exchange.sizes().values()) < 10_000

    def _announced(self, body: bytes, made: bytes, how: int) -> bytes:
        """The announcement of a rollout with this body, true but for what bits of `how` say."""
        try:
            rollout = codec.decode(Kind.ROLLOUT, body)
        except ProtocolError:
            return made
        assert type(rollout) is Rollout
        id = hashlib.sha256(envelope.signed_bytes(Kind.ROLLOUT, SWARM, AUTHOR, body)).digest()
        item = Item(
            bytes(32) if how & 4 else id,
            rollout.task_digest,
            rollout.seed ^ (how >> 3 & 1),
            len(made) + (how >> 4 & 1),
        )
        offer = Announcement.build(
            round=1, created=NOW, policy_version=1, model_label="fuzz", items=[item]
        )
        return sealed(Kind.ANNOUNCEMENT, codec.encode(offer))

    def question(self, data: bytes) -> None:
        """A rollout of the stranger's, well signed and announced, up to its rebuilt question."""
        rollout = _unverified(Kind.ROLLOUT, data)
        if rollout is None:
            return
        assert type(rollout) is Rollout
        known = list(self.digests)
        digest = known[int.from_bytes(rollout.task_digest) % len(known)]
        seed = names.question_seed(SWARM, AUTHOR, digest, rollout.seed)
        question = self.rebuild(digest, seed)
        assert question == self.rebuild(digest, seed)
        assert question.prompt
        assert compare.readable(question.answer, question.metadata)

    def rebuild(self, digest: bytes, seed: int) -> Question:
        return self.tasks.question(self.digests[digest], seed)

    def _fresh(self) -> Exchange:
        """A new exchange every so often, so that what one remembers is part of what is tried."""
        if self._exchange is None or self._count % 64 == 0:
            me = SigningKey(bytes([9]) * 32)
            self._wire = Wire(names.peer_id(bytes(me.verify_key)))
            self._exchange = Exchange(
                self._wire,
                SharingSettings(),
                swarm_id=SWARM,
                signing_key=bytes(me),
                public_key=bytes(me.verify_key),
                model_label="fuzz",
                tasks=self.digests,
                rebuild=self.rebuild,
            )
        self._count += 1
        return self._exchange


class Tokens:
    """Text of a stranger's into ids, for the kinds of tokenizer that models have."""

    def __init__(self) -> None:
        sys.path.append(str(Path(__file__).parents[1] / "generate"))
        from local_tokenizers import byte_level, sentencepiece_bpe, unigram, wordpiece

        from swarmnode.generate.encode import text_codec
        from swarmnode.generate.prompt import prompt_encoder

        made = [make() for make in (byte_level, sentencepiece_bpe, unigram, wordpiece)]
        codecs = [text_codec(tokenizer) for tokenizer in made]
        self._codecs = codecs
        self._prompts = [
            prompt_encoder(tokenizer, one, "Be brief.")
            for tokenizer, one in zip(made, codecs, strict=True)
        ]

    def tokens(self, data: bytes) -> None:
        """First byte: the tokenizer; the rest: the text of a rollout, as far as it is one."""
        which, text = (data[0] if data else 0) % 4, data[1:].decode(errors="ignore")
        fields = (b"fuzz", 1, 1, 1, 100, "fuzz", b"\0\1\0\1\1", (text,))
        rollout = _unverified(Kind.ROLLOUT, codec.encode(Rollout(*fields)))
        if rollout is None:
            return
        assert type(rollout) is Rollout
        (text,) = rollout.texts
        one = self._codecs[which]
        ids = one.encode(text)
        assert one.forbidden.isdisjoint(ids)
        one.decode(ids)
        prompt = self._prompts[which]
        fixed = sum(id in one.forbidden for part in prompt.parts for id in part)
        assert sum(id in one.forbidden for id in prompt.encode(text)) == fixed


def sealed(kind: Kind, body: bytes) -> bytes:
    """A frame around any body, signed as an honest one."""
    signature = _KEY.sign(envelope.signed_bytes(kind, SWARM, AUTHOR, body)).signature
    return bytes((PROTOCOL_VERSION, kind)) + AUTHOR + signature + body


def targets(*wanted: str) -> Mapping[str, Target]:
    """The targets by name; opens tasks and tokenizers only if something wanted needs them."""
    plain: dict[str, Target] = {
        "frame": frame,
        "message": message,
        "compressed": compressed,
        "streams": streams,
        "local": local,
        "decrypted": decrypted,
        "signed": signed,
        "answers": answers,
    }
    if not wanted or {"exchange", "question"} & set(wanted):
        chain = Chain()
        plain |= {"exchange": chain.exchange, "question": chain.question}
    if not wanted or "tokens" in wanted:
        plain |= {"tokens": Tokens().tokens}
    return {name: plain[name] for name in wanted} if wanted else plain


def _unverified(kind: int, body: bytes) -> Rollout | Announcement | None:
    """What the frame decoder makes of a body but for the signature; None if it refuses it."""
    frame = bytes((PROTOCOL_VERSION, kind)) + AUTHOR + bytes(64) + body
    try:
        author, decoded = envelope.read_unverified(frame)
    except ProtocolError:
        return None
    assert author == AUTHOR
    return decoded


def _read(decoded: Rollout | Announcement) -> None:
    """Every property that the node reads."""
    if type(decoded) is Rollout:
        columns = (decoded.texts, decoded.mean_logps, decoded.token_counts, decoded.ended)
        assert len({len(column) for column in columns}) == 1
        assert 0 <= decoded.temperature <= 10
        assert all(count > 0 for count in decoded.token_counts)
    else:
        assert type(decoded) is Announcement
        assert all(len(id) == 4 for id in decoded.held)
        assert all(0 < item.frame_bytes <= MAX_FRAME_BYTES for item in decoded.items)


def _block(data: bytes) -> None:
    assert codec.block_length(data[:BLOCK_HEADER_BYTES], MAX_FRAME_BYTES) <= MAX_FRAME_BYTES


def _peers(data: bytes) -> None:
    for address in codec.decode_peers(data):
        assert address.isascii()


def _hello(data: bytes) -> None:
    codec.decode_hello(data).mismatch(SWARM)


def _request(data: bytes) -> None:
    assert codec.encode_fetch_request(codec.decode_fetch_request(data)) == data


def _response(data: bytes) -> None:
    count = data[0] % 9 if data else 0
    frames = codec.decode_fetch_response(data[1:], count)
    assert codec.encode_fetch_response(frames) == data[1:]


_STREAMS = (_hello, _peers, _request, _response, _block)
_SERVICE = names.lan_service(SWARM)
