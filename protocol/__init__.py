"""The wire protocol of swarmnode, version 1: bytes in, messages out. No I/O, no torch.

| file | what it holds |
|---|---|
| SPEC.md | the protocol in words and tables: all that another implementation needs |
| limits.py | every number, with its unit, reason and what breaks if it changes |
| errors.py | `Reason`, the closed set of refusals, and `ProtocolError` |
| names.py | hashes and names: swarm id, task digest, question seed, peer id, topics |
| messages.py | `Rollout`, `Announcement`, `Hello`: fields, bounds, and how to build them |
| codec.py | message ⇄ canonical bytes; what streams carry (hello, fetch) |
| compression.py | bodies made smaller by Zstandard, and back within bounds |
| envelope.py | signed frames: `seal` and `open_frame` |
| vectors/ | exact bytes, good and bad, for this and any other implementation |

Sources: MessagePack (msgpack.org), Ed25519 (RFC 8032), SHA-256 (FIPS 180-4), Zstandard (RFC 8878),
peer ids (libp2p specs, peer-ids). Code, SPEC.md, vectors and the version change together.
"""
