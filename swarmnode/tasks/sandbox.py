"""What the scorer process gives up before it reads a stranger's text, one function per layer.

Standard library only, through `ctypes`; each layer says whether this kernel has it, and none needs
root. They overlap on purpose: a file is out of reach by the limit on descriptors, by Landlock and
by the system call filter, each alone.

| layer | what is lost | since |
|---|---|---|
| `limits` | new descriptors, processes, core dumps, growing files, memory above a bound | any |
| `network` | interfaces: a network name space without any | 3.8, where users may make one |
| `no_new_privileges` | set-user-id programs; needed by the two below | 3.5 |
| `landlock` | every path; TCP; signals and abstract sockets of others | 5.13, 6.7, 6.12 |
| `system_calls` | all but `_ALLOWED`, and memory that is made executable | 3.5, x86-64 and arm64 |

Sources: https://docs.kernel.org/userspace-api/landlock.html, .../seccomp_filter.html, seccomp(2).
"""

import ctypes
import platform
import resource
import struct
from typing import Any, Final

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

# The numbers are the same on all architectures.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
# Rights to paths that a version knows: bits from the lowest. An unknown bit is refused, and what is
# not handled is allowed, so the number must fit the kernel.
_PATH_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_PATH_RIGHTS_SINCE_5 = 16
_TCP_SINCE, _TCP_BIND_AND_CONNECT = 4, 0b11
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11

# Per architecture: its number in seccomp's data, and the system calls by which an interpreter
# reads, writes, has memory and ends. mmap and mprotect are last: they are looked into.
_ALLOWED: Final = {
    "x86_64": (
        0xC000003E,
        # read write close fstat lseek munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
        # sched_yield mremap madvise getpid exit sigaltstack gettid futex restart_syscall
        # clock_gettime exit_group getrandom
        (0, 1, 3, 5, 8, 11, 12, 13, 14, 15, 24, 25, 28, 39, 60, 131, 186, 202, 219, 228, 231, 318),
        (9, 10),
    ),
    "aarch64": (
        0xC00000B7,
        # close lseek read write fstat exit exit_group futex clock_gettime sched_yield
        # restart_syscall sigaltstack rt_sigaction rt_sigprocmask rt_sigreturn getpid gettid brk
        # munmap mremap madvise getrandom
        (
            *(
                57,
                62,
                63,
                64,
                80,
                93,
                94,
                98,
                113,
                124,
                128,
                132,
                134,
                135,
                139,
                172,
                178,
                214,
                215,
            ),
            *(216, 233, 278),
        ),
        (222, 226),
    ),
}
_PROT_EXEC = 4
_EPERM = 1

# Classic BPF: load a word, jump if equal, jump if any bit is set, return.
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | _EPERM
# Where seccomp's data hold the call's number, the architecture and the third argument's low half.
_NUMBER_AT, _ARCHITECTURE_AT, _PROTECTION_AT = 0, 4, 32


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def limits(memory_bytes: int) -> None:
    """No further descriptor, process (the kernel exempts root), core dump or growing file, and an
    address space of at most `memory_bytes`."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, 3),  # standard input, output and error are open: no more
    ):
        resource.setrlimit(limit, (value, value))


def network() -> bool:
    """A network name space of its own without interfaces; needs a process with one thread."""
    return bool(_libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def no_new_privileges() -> bool:
    return bool(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def landlock() -> int:
    """Gives up every path, TCP, and others' signals as far as the kernel can; the version of
    Landlock that did it, 0 for none. Call `no_new_privileges` before."""
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return 0
    handled = ruleset(version)
    rules = libc.syscall(_LANDLOCK_CREATE_RULESET, handled, len(handled), 0)
    if rules < 0:
        return 0
    done = libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0
    libc.close(rules)
    return int(version) if done else 0


def ruleset(version: int) -> bytes:
    """`struct landlock_ruleset_attr`: all rights that this version knows, and no rule that grants
    one."""
    paths = (1 << _PATH_RIGHTS.get(version, _PATH_RIGHTS_SINCE_5)) - 1
    packed = struct.pack("=Q", paths)
    if version >= _TCP_SINCE:
        packed += struct.pack("=Q", _TCP_BIND_AND_CONNECT)
    if version >= _SCOPES_SINCE:
        packed += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    return packed


def system_calls() -> bool:
    """Lets through only what an interpreter needs to compute, read and write; all else fails with
    EPERM. Call it last: it forbids the other layers. False where the kernel or the architecture has
    no such filter."""
    instructions = program(platform.machine())
    if not instructions:
        return False
    made = _Program(len(instructions) // 8, instructions)
    done = _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(made), 0, 0)
    return bool(done == 0)


def program(machine: str) -> bytes:
    """The filter of an architecture as BPF instructions; empty for one that is not known.

    A 32-bit call has another architecture and ends the process. x32 calls have numbers of their
    own, which are not on the list.
    """
    if machine not in _ALLOWED:
        return b""
    architecture, plain, looked_into = _ALLOWED[machine]
    made = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for index, number in enumerate((*plain, *looked_into)):
        # Both ends stand behind the list: jumps are counted from the next instruction.
        left = len(plain) + len(looked_into) - index - 1
        made.append((_JUMP_EQUAL, left + (1 if index < len(plain) else 2), 0, number))
    made += [
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _PROTECTION_AT),
        (_JUMP_SET, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in made)


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
