"""Every number of the protocol (SPEC.md section 2): unit, reason, what breaks if it changes.

All nodes of a swarm must agree on these. A node with a larger limit is refused by the others
(`too_large`, `out_of_bounds`); one with a smaller limit refuses honest peers. So a change here is
a new PROTOCOL_VERSION.
"""

# Version of frames, signatures, topics and fetch streams. Only Hello does not depend on it.
PROTOCOL_VERSION = 1

# --- Fixed sizes, bytes. Another value is another format. ---
PUBLIC_KEY_BYTES = 32  # Ed25519 (RFC 8032)
SIGNATURE_BYTES = 64  # Ed25519 (RFC 8032)
HASH_BYTES = 32  # SHA-256: swarm ids, frame ids, the discovery key
# A task is looked up among the few of a manifest, which its author checks for collisions; a
# stranger cannot add one. Eight bytes would cost 4 bytes a rollout and buy nothing.
TASK_DIGEST_BYTES = 4
HEADER_BYTES = 2 + PUBLIC_KEY_BYTES + SIGNATURE_BYTES  # version, kind, author, signature: 98
STATS_ENTRY_BYTES = 4  # per completion: u16 mean log-probability, u16 token count
ENDED_BYTES = 1  # one bit per completion, after the stats' entries
ITEM_BYTES = HASH_BYTES + TASK_DIGEST_BYTES + 4 + 4  # id, task, seed, frame size: 44
BLOCK_HEADER_BYTES = 4  # u32 length in front of each block on a stream

# --- Rollouts ---
# Completions in one rollout. The usual G; a larger group goes out as several rollouts. The stats
# column and the list of texts are sized by it: above 8 `ended` needs a second byte, above 15
# MessagePack's headers grow, and ROLLOUT_OVERHEAD_BYTES no longer holds.
MAX_COMPLETIONS = 8
# Bytes of UTF-8 in one text: some 8,000 tokens of English, four times the longest answers that
# small models need. Below 65,536, so that a text's length takes 3 bytes (str 16). Smaller cuts
# honest answers, larger lets one stranger fill memory.
MAX_TEXT_BYTES = 32_768
# Bytes of a rollout's frame beyond its texts: 98 of header and at most 102 of body (SPEC.md
# section 5 adds them up); compressed it is smaller still. Promised to users as the cost of
# sharing; a test holds it.
ROLLOUT_OVERHEAD_BYTES = 200
# Bytes of the largest frame: 262,344. A relay that cuts circuits after 128 KiB does not pass
# the largest ones; the eight texts would have to average 16 KB.
MAX_FRAME_BYTES = MAX_COMPLETIONS * MAX_TEXT_BYTES + ROLLOUT_OVERHEAD_BYTES
# Bytes of the largest body, also of a compressed one after decompression, and of the window that
# its decompressor may keep: 262,246. It is what one frame can make a receiver allocate.
MAX_ROLLOUT_BODY_BYTES = MAX_FRAME_BYTES - HEADER_BYTES
# Bytes of a model's label: enough for "Qwen2.5-0.5B". Below 32, so that its length takes 1 byte.
MAX_LABEL_BYTES = 16
# Hundredths: 10.00. Hotter sampling is noise. 0 is greedy.
MAX_TEMPERATURE_HUNDREDTHS = 1000
# Thousandths of a nat below zero: 65.535, where the mean log-probability saturates. A uniform
# guess among 150,000 tokens is −11.9, so honest values do not reach it.
MAX_LOGP_THOUSANDTHS = 65_535
MAX_TOKEN_COUNT = 65_535  # tokens of one completion, saturating; u16

# --- Announcements ---
# Rollouts that one announcement offers. A node publishes about 8 a round; 64 leaves room for a
# fast GPU. More only makes flooding cheaper.
MAX_ITEMS = 64
# Rollouts of others that an announcement says its author holds, too: what it fetched in a round.
# Named by the first bytes of their ids: a wrong match costs one fetch in vain, and among the some
# thousand offers that a node knows it happens once in a million.
MAX_HELD = 16
HELD_BYTES = 4
# Bytes of the largest announcement's frame: header, 6 fields of at most 1 + 5 + 5 + 5 + 17 bytes
# with the array's head, a bin of 64 items and one of 16 held ids. 8 items make at most 552 bytes.
MAX_ANNOUNCEMENT_BYTES = HEADER_BYTES + 33 + 3 + MAX_ITEMS * ITEM_BYTES + 2 + MAX_HELD * HELD_BYTES

# --- Streams ---
# Ids in one fetch. Eight of the largest frames make 2.1 MB, under the 4 MiB that libraries allow
# one unary message.
MAX_FETCH_IDS = 8
MAX_FETCH_REQUEST_BYTES = MAX_FETCH_IDS * HASH_BYTES
MAX_FETCH_RESPONSE_BYTES = MAX_FETCH_IDS * (BLOCK_HEADER_BYTES + MAX_FRAME_BYTES)

# Addresses in one answer to "whom do you know": a node looks for some ten neighbours. Each has at
# most MAX_ADDRESS_BYTES of text: a relayed one with a DNS name and two peer ids has about 230.
MAX_PEER_ADDRESSES = 32
MAX_ADDRESS_BYTES = 255
MAX_PEERS_BYTES = 3 + MAX_PEER_ADDRESSES * (2 + MAX_ADDRESS_BYTES)

# --- Hello. These bind every version, for ever: old nodes read the greetings of new ones. ---
MAX_HELLO_BYTES = 512  # version 1 needs at most 156; the rest is for later versions' fields
MAX_SWARM_NAME_BYTES = 64
MAX_SOFTWARE_BYTES = 32

# --- Widths ---
U8_MAX = 2**8 - 1
U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1  # seconds since 1970 fit until 2106
