"""The errors a person or the node's loop can act on, by whose fault they are.

A peer's fault is never an exception outside `protocol`: it is a refusal with a reason.
Our own bugs are plain `ValueError`/`TypeError`.
"""


class SwarmNodeError(Exception):
    """The environment failed: network, disk, device. Survived and counted at the round boundary.

    The message is one line that says what failed and what a person can do about it.
    """


class DeviceFailed(SwarmNodeError):
    """The device is gone for this process: whatever it is asked again fails, too.

    The node ends at once, so that whoever supervises it starts a new process, which resumes.
    """


class ConfigError(SwarmNodeError):
    """The user asked for something impossible. The program ends with exit code 2, no traceback.

    The message is one line: what was given, what is allowed, how to fix it.
    """
