"""A stranger with py-libp2p and without our code: sends one kind of bad gossip, then says so.

Run as a program, as it would be elsewhere: `hostile_peer.py <victim's address> <kind>`. It prints
"sent" when its bytes are out, and "closed" when the victim has closed the connection.
"""

import logging
import sys

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from multiaddr import Multiaddr
from transport_parts import SWARM

from protocol.names import announcement_topic
from swarmnode.swarm.multiaddr import varint

TOPIC = announcement_topic(SWARM)


def message(topic: str = TOPIC, **changes: bytes) -> rpc_pb2.Message:
    """A message signed by a fresh key, then changed."""
    keys = create_new_key_pair()
    made = rpc_pb2.Message(
        from_id=ID.from_pubkey(keys.public_key).to_bytes(),
        data=b"hostile",
        seqno=bytes(8),
        topicIDs=[topic],
    )
    made.signature = keys.private_key.sign(
        PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString()
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def block(*messages: rpc_pb2.Message) -> bytes:
    body = rpc_pb2.RPC(publish=messages).SerializeToString()
    return varint(len(body)) + body


# What py-libp2p 0.8.1 lets raise out of its loops are the first three.
KINDS = {
    "no protobuf": varint(9) + b"\xff" * 9,
    # A publisher that is no key makes it read the key in the message: here no protobuf, then one
    # of type RSA with 3 bytes.
    "bad from": block(message(from_id=b"\x12\x20nobody", key=b"abc")),
    "bad key": block(message(from_id=b"\x12\x20" + bytes(32), key=b"\x08\x00\x12\x03abc")),
    "forged": block(message(data=b"not what was signed")),
    "endless": b"\xff" * 20,
    "huge": varint(2**31),
}


async def main(victim: str, kind: str) -> None:
    host = new_host()
    info = info_from_p2p_addr(Multiaddr(victim))
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, [TProtocol("/meshsub/1.1.0")])
        await stream.write(KINDS[kind])
        say(f"sent {host.get_id()}")
        await until_closed(stream)
        while host.get_network().get_connections(info.peer_id):
            await trio.sleep(0.05)
        say("closed")


async def until_closed(stream: INetStream) -> None:
    try:
        while await stream.read(1):
            pass
    except Exception:  # noqa: BLE001  whatever it is called: it is closed
        return


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  read by the test


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(main, *sys.argv[1:])
