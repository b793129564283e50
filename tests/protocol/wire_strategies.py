"""Hypothesis strategies: valid messages of any shape, and bodies that are almost valid."""

import msgpack
from hypothesis import strategies as st

from protocol.limits import MAX_COMPLETIONS, MAX_FRAME_BYTES, MAX_HELD, MAX_ITEMS, U16_MAX, U32_MAX
from protocol.messages import Announcement, Item, Rollout

u32 = st.integers(0, U32_MAX)
digests = st.binary(min_size=4, max_size=4)
any_text = st.text(st.characters(exclude_categories=()), max_size=400)  # surrogates, controls too
repeated_text = st.builds(lambda text, times: text * times, any_text, st.integers(1, 50))


@st.composite
def rollouts(draw: st.DrawFn, text: st.SearchStrategy[str] = any_text) -> Rollout:
    count = draw(st.integers(1, MAX_COMPLETIONS))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    return Rollout.build(
        task_digest=draw(digests),
        seed=draw(u32),
        created=draw(u32),
        policy_version=draw(u32),
        temperature=draw(st.floats(0, 10)),
        model_label=draw(any_text),
        texts=column(text),
        mean_logps=column(st.floats(allow_nan=False)),
        token_counts=column(st.integers(-1, U16_MAX + 1)),
        ended=column(st.booleans()),
    )


@st.composite
def announcements(draw: st.DrawFn) -> Announcement:
    ids = draw(st.lists(st.binary(min_size=32, max_size=32), unique=True, max_size=MAX_ITEMS))
    sizes = st.integers(1, MAX_FRAME_BYTES)
    held = st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_HELD)
    return Announcement.build(
        round=draw(u32),
        created=draw(u32),
        policy_version=draw(u32),
        model_label=draw(any_text),
        items=[Item(one, draw(digests), draw(u32), draw(sizes)) for one in ids],
        held=draw(held),
    )


messages = rollouts() | rollouts(repeated_text) | announcements()

# Every type MessagePack has, nested; floats include NaN, Timestamp and ExtType the extensions.
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, u32, st.integers(0, 999_999_999))
)
_values = st.recursive(
    _leaves,
    lambda children: (
        st.lists(children, max_size=9)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), children, max_size=4)
    ),
    max_leaves=12,
)
_hostile_endings = st.sampled_from(
    [b"", b"\x00", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 3000]
)


@st.composite
def almost_bodies(draw: st.DrawFn) -> bytes:
    """A valid rollout's fields with some replaced by anything, and perhaps an odd ending."""
    message = draw(messages)
    fields = list(msgpack.unpackb(_body(message)))
    for at in draw(st.sets(st.integers(0, len(fields) - 1), max_size=3)):
        fields[at] = draw(_values)
    return msgpack.packb(fields) + draw(_hostile_endings)


@st.composite
def mutated(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """A valid frame with bytes replaced, inserted, removed or cut off."""
    data = bytearray(draw(frames))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=4))
        data[at : at + draw(st.integers(0, 4))] = new
    return bytes(data)


def _body(message: Rollout | Announcement) -> bytes:
    import msgspec

    encoded: bytes = msgspec.msgpack.encode(message)
    return encoded
