"""Why bytes or a rollout are refused (SPEC.md section 9).

`Reason` is closed: it is the metric's label and the table in SPEC.md, and a test compares them.
Only this package raises for a peer's fault; the layers above turn the error into a value.
"""

import enum


class Reason(enum.StrEnum):
    """The refusals. The first block is decided from the bytes alone, in this order."""

    TOO_LARGE = "too_large"
    WRONG_VERSION = "wrong_version"
    UNKNOWN_KIND = "unknown_kind"
    BAD_COMPRESSION = "bad_compression"
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"
    NOT_CANONICAL = "not_canonical"
    OUT_OF_BOUNDS = "out_of_bounds"

    # Decided by the receiving node from what it knows; never raised in this package.
    WRONG_SWARM = "wrong_swarm"
    OWN = "own"
    DUPLICATE = "duplicate"
    NOT_ANNOUNCED = "not_announced"
    WRONG_SHARD = "wrong_shard"
    UNKNOWN_TASK = "unknown_task"
    TOO_OLD = "too_old"
    FROM_FUTURE = "from_future"
    HELD_OUT = "held_out"
    UNSCORABLE = "unscorable"
    OVER_QUOTA = "over_quota"
    AVOIDED = "avoided"
    WRONG_NUMBER = "wrong_number"
    COPIED = "copied"


class ProtocolError(Exception):
    """A peer's bytes break the protocol. `detail` says how and quotes nothing the peer wrote."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
