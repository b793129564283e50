"""A round that the environment made fail: what torch raises when the device fails, as errors of
the environment, and what any of those was about.

Memory that runs out is met where it can be mended, by smaller batches (`train/trainer.py`,
`generate/hf.py`); what escapes from there is a round that failed. After any other error of CUDA's
the context of this process stays unusable (CUDA runtime API, `cudaErrorIllegalAddress` and its
like: "the process must be terminated and relaunched"), so that trying again is in vain.
"""

import enum
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from swarmnode.errors import DeviceFailed, SwarmNodeError

# Libraries above the runtime raise plain `RuntimeError`s with their own words.
_OF_DEVICE = re.compile(
    r"(CUDA|HIP) (driver )?error|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_|cuDNN error"
)
_SHOWN = 160

# What a disk says that refuses; other errors of the system are the network's, or a bug's.
_OF_DISK = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM,
})  # fmt: skip


class Cause(enum.StrEnum):
    """What a failed round was about; a metric's label."""

    MEMORY = "memory"
    DISK = "disk"
    DEVICE = "device"
    OTHER = "other"


def cause_of(error: BaseException) -> Cause:
    """By the first of the errors behind `error` that says it."""
    behind: BaseException | None = error
    while behind is not None:
        match behind:
            case torch.OutOfMemoryError():
                return Cause.MEMORY
            case DeviceFailed():
                return Cause.DEVICE
            case SafetensorError():
                return Cause.DISK
            case OSError() if behind.errno in _OF_DISK:
                return Cause.DISK
        behind = behind.__cause__
    return Cause.OTHER


@contextmanager
def of_the_device() -> Iterator[None]:
    """Raises `SwarmNodeError` for memory that ran out and `DeviceFailed` for a device that failed,
    in the place of torch's errors; every other error goes through."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SwarmNodeError(
            f"out of memory ({_first_line(error)}): lower generate.max_new_tokens or "
            "train.micro_batch_tokens, or use a smaller model"
        ) from error
    except RuntimeError as error:
        if not (isinstance(error, torch.AcceleratorError) or _OF_DEVICE.search(str(error))):
            raise
        raise DeviceFailed(
            f"the device failed ({_first_line(error)}): start again to resume at the last "
            "checkpoint; if it comes again, look into the driver's log (dmesg, nvidia-smi)"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip()[:_SHOWN]
