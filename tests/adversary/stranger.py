"""A stranger with py-libp2p and without our code, against a real node of either library.

Run as a program, as it would be elsewhere: `stranger.py <victim's address> <kind> [options]`. Its
lines tell what it did and when, in seconds since the attack began: "began", "cut" when the victim
has closed the connection, "sent <messages>" at the end.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import cycle, islice

import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import INetStream
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from multiaddr import Multiaddr
from nacl.signing import SigningKey
from parts import SWARM, announcement

from protocol.envelope import seal
from protocol.names import HELLO_PROTOCOL, announcement_topic, fetch_protocol
from swarmnode.swarm.multiaddr import varint

TOPIC = announcement_topic(SWARM)
GOSSIP = TProtocol("/meshsub/1.1.0")
_BATCH = 50  # messages in one RPC
_CONNECTIONS = 3  # what py-libp2p allows of a peer
_ANYWHERE = "/ip4/127.0.0.1/tcp/0"


def say(*words: object) -> None:
    print(*words, flush=True)


def gossip(seed: bytes, number: int, frame: bytes) -> rpc_pb2.Message:
    """A message signed by its publisher, as libp2p wants it."""
    key = SigningKey(seed)
    publisher = bytes((0, 36, 8, 1, 18, 32)) + bytes(key.verify_key)
    made = rpc_pb2.Message(
        from_id=publisher, data=frame, seqno=number.to_bytes(8), topicIDs=[TOPIC]
    )
    made.signature = key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString()).signature
    return made


def block(rpc: rpc_pb2.RPC) -> bytes:
    body = rpc.SerializeToString()
    return varint(len(body)) + body


def flood_of_one_key(count: int, seed: bytes) -> Iterator[bytes]:
    frame = seal(announcement((), time.time(), 1), seed, SWARM).frame
    for start in range(0, count, _BATCH):
        many = [gossip(seed, start + n, frame) for n in range(_BATCH)]
        yield block(rpc_pb2.RPC(publish=many))


def flood_of_many_keys(count: int, seed: bytes) -> Iterator[bytes]:
    """Each message by another publisher, all over one link."""
    for start in range(0, count, _BATCH):
        many = []
        for n in range(_BATCH):
            other = (int.from_bytes(seed) + 1 + start + n).to_bytes(64)[-32:]
            many.append(
                gossip(other, n, seal(announcement((), time.time(), 1), other, SWARM).frame)
            )
        yield block(rpc_pb2.RPC(publish=many))


class Attack:
    """A host, its victim, and when it was cut off."""

    def __init__(self, host: IHost, victim: PeerInfo) -> None:
        self.host = host
        self.victim = victim
        self.began = 0.0
        self.offered = 0  # messages, those on their way included
        self.sent = 0
        self.left = 0  # of a flood's first streams

    def begin(self) -> None:
        self.began = time.monotonic()
        say("began")

    def at(self) -> str:
        return f"{time.monotonic() - self.began:.2f}"

    async def flood(self, blocks: list[bytes], per_s: int, for_s: float, links: int) -> None:
        """Sends the blocks at this rate over so many streams of one peer, on some connections,
        connecting again whenever one is cut off."""
        keys = self.host.get_private_key()
        async with AsyncExitStack() as stack:
            hosts = [self.host]
            for _ in range(min(links, _CONNECTIONS) - 1):
                hosts.append(new_host(key_pair=KeyPair(keys, keys.get_public_key())))
                await stack.enter_async_context(hosts[-1].run([Multiaddr(_ANYWHERE)]))
            streams = [await self._gossip(host) for host in islice(cycle(hosts), links)]
            self.left = links
            self.begin()
            async with trio.open_nursery() as tasks:
                for host, stream in zip(cycle(hosts), streams, strict=False):
                    tasks.start_soon(self._send, host, stream, blocks, per_s, for_s)
        say("sent", self.sent)

    async def _gossip(self, host: IHost) -> INetStream:
        """A new stream for gossip, subscribed."""
        await host.connect(self.victim)
        stream = await host.new_stream(self.victim.peer_id, [GOSSIP])
        subscription = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)
        await stream.write(block(rpc_pb2.RPC(subscriptions=[subscription])))
        return stream

    async def _send(
        self,
        host: IHost,
        stream: INetStream,
        blocks: list[bytes],
        per_s: int,
        for_s: float,
    ) -> None:
        """One stream's part of a flood; all share the blocks, the rate and the count. The peer is
        cut off when each of the first streams was."""
        is_first = True
        while time.monotonic() - self.began < for_s:
            try:
                stream = stream if is_first else await self._gossip(host)
                while time.monotonic() - self.began < for_s:
                    ahead_s = self.offered / per_s - (time.monotonic() - self.began)
                    if ahead_s > 0:
                        await trio.sleep(ahead_s)
                        continue
                    self.offered += _BATCH
                    await stream.write(blocks[self.offered // _BATCH % len(blocks)])
                    self.sent += _BATCH
            except Exception:  # noqa: BLE001  however the library calls it: it is cut off
                self.left -= is_first
                if is_first and not self.left:
                    say("cut", self.at(), self.sent)
                is_first = False
                await trio.sleep(0.2)

    async def hold_streams(self, protocol: str, count: int, said: bytes, for_s: float) -> None:
        """Opens so many streams, says `said` on each, and never reads."""
        self.begin()
        streams = []
        await self.host.connect(self.victim)
        with trio.move_on_after(for_s):
            for _ in range(count):
                try:
                    stream = await self.host.new_stream(self.victim.peer_id, [TProtocol(protocol)])
                    await stream.write(said)
                except Exception:  # noqa: BLE001  turned away: the next
                    await trio.sleep(0.01)
                    continue
                streams.append(stream)
                self.sent += 1
            say("opened", self.sent)
            await trio.sleep_forever()
        say("sent", self.sent)


async def main(address: str, kind: str, *options: str) -> None:
    victim = info_from_p2p_addr(Multiaddr(address))
    seed = os.urandom(32)
    keys = create_new_key_pair(seed)
    assert str(ID.from_pubkey(keys.public_key))
    host = new_host(key_pair=keys)
    numbers = [float(option) for option in options[:2]]
    async with host.run([Multiaddr(_ANYWHERE)]):
        attack = Attack(host, victim)
        match kind:
            case "one-key" | "many-keys":
                make = flood_of_one_key if kind == "one-key" else flood_of_many_keys
                per_s, for_s = int(numbers[0]), numbers[1]
                blocks = list(make(4 * per_s, seed))
                await attack.flood(blocks, per_s, for_s, int(options[2]) if options[2:] else 1)
            case "slow-reader":  # asks for what is held, again and again, and takes nothing
                ids = bytes.fromhex(options[2])
                said = len(ids).to_bytes(4) + ids
                await attack.hold_streams(fetch_protocol(SWARM), int(numbers[0]), said, numbers[1])
            case "silent":
                await attack.hold_streams(fetch_protocol(SWARM), int(numbers[0]), b"", numbers[1])
            case "silent-hello":
                await attack.hold_streams(HELLO_PROTOCOL, int(numbers[0]), b"", numbers[1])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(main, *sys.argv[1:])
