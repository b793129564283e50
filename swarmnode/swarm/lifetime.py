"""How a child process learns that its parent is gone, even when the parent was killed by -9."""

import ctypes
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def dies_with_parent(signal_number: int) -> Callable[[], None]:
    """What a child calls first to get `signal_number` when its parent thread ends, even by -9.

    Elsewhere than on Linux it does nothing: there a killed parent is noticed by its closed pipe.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: not safe after a fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
