"""A rollout's body made smaller by Zstandard, and back (SPEC.md section 6).

A stranger's compressed bytes can claim any size and swell a thousandfold, so `decompress` reads the
header and compares before it decompresses, in one piece and never as a stream. The size that the
header states is what is allocated: `max_output_size` alone bounds nothing, because the library
ignores it where a size is stated.

Source: Zstandard (RFC 8878), section 3.1.1.
"""

from typing import Final

import zstandard

from protocol.errors import ProtocolError, Reason

# The sender's own choices; receivers check neither.
# On recorded reasoning level 19 gives 7 % fewer bytes than level 3 and takes 16 times as long.
_LEVEL: Final = 3
# Bytes that compression must save: less is not worth the receiver's decompressor. Eight bare
# numbers save about as much; eight answers in a tag save 130 and more.
MIN_SAVING_BYTES: Final = 32

# Only this format: the library also walks over skippable frames, and builds may know old formats.
_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def compress(body: bytes) -> bytes | None:
    """`body` as one Zstandard frame that states its size; None if that saves too little."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
    compressed = compressor.compress(body)
    return compressed if len(compressed) + MIN_SAVING_BYTES <= len(body) else None


def decompress(data: bytes, limit_bytes: int) -> bytes:
    """The body, at most `limit_bytes`, in `data`: one whole Zstandard frame and nothing more.

    Raises `ProtocolError` bad_compression, from the header alone where it can. Output is bounded
    by `limit_bytes`, input is smaller than output, so no input costs more than a few milliseconds.
    """
    size = _stated_size(data, limit_bytes)
    decompressor = zstandard.ZstdDecompressor(max_window_size=limit_bytes)
    try:
        body = decompressor.decompress(data, max_output_size=limit_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _refused("not one whole Zstandard frame of its stated size") from error
    if len(body) != size:
        raise _refused("not of its stated size")
    return body


def _stated_size(data: bytes, limit_bytes: int) -> int:
    """The size that the header states, after every check that needs only the header."""
    if not data.startswith(_MAGIC):
        raise _refused("not a Zstandard frame")
    try:
        header = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise _refused("no Zstandard header") from error
    if header.dict_id:
        raise _refused("asks for a dictionary")
    size: int = header.content_size
    if size > limit_bytes:  # unknown is 2**64 − 1 here
        raise _refused("size unknown or above the limit")
    if header.window_size > limit_bytes:  # a single pass ignores it
        raise _refused("window above the limit")
    if len(data) >= size:  # holds for zero, too, where the library looks at no block
        raise _refused("not smaller than the body")
    return size


def _refused(detail: str) -> ProtocolError:
    return ProtocolError(Reason.BAD_COMPRESSION, detail)
