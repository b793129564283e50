"""What torch raises when a device fails, as errors of the environment, and their causes."""

import errno

import pytest
import torch

from swarmnode.errors import DeviceFailed, SwarmNodeError
from swarmnode.failures import Cause, cause_of, of_the_device


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with ..."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_device_that_is_gone_is_told_in_one_line(error: Exception) -> None:
    with pytest.raises(DeviceFailed, match="start again to resume") as caught, of_the_device():
        raise error
    assert "\n" not in str(caught.value)
    assert cause_of(caught.value) is Cause.DEVICE


def test_memory_that_runs_out_is_a_round_that_failed() -> None:
    with pytest.raises(SwarmNodeError, match="out of memory") as caught, of_the_device():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert not isinstance(caught.value, DeviceFailed)
    assert cause_of(caught.value) is Cause.MEMORY


def test_other_errors_go_through() -> None:
    with pytest.raises(RuntimeError, match="shapes") as caught, of_the_device():
        raise RuntimeError("shapes cannot be multiplied")
    assert type(caught.value) is RuntimeError


@pytest.mark.parametrize(
    ("behind", "cause"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Cause.DISK),
        (OSError(errno.EROFS, "Read-only file system"), Cause.DISK),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Cause.OTHER),
        (None, Cause.OTHER),
    ],
)
def test_the_cause_is_that_of_the_error_behind(behind: OSError | None, cause: Cause) -> None:
    error = SwarmNodeError("cannot save")
    error.__cause__ = behind
    assert cause_of(error) is cause
