"""What the machine gives a node: Python, torch, GPU, cores, files, a clock, disk, its key."""

import os
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from swarmnode import identity
from swarmnode.doctor.check import Check, ok, problem, warning
from swarmnode.errors import SwarmNodeError

_GB = 10**9
# Oldest Python that the package is tested on.
_PYTHON = (3, 11)
# A node needs some 100 descriptors; a large swarm's connections come on top.
_FEW_FILES, _ENOUGH_FILES = 256, 1024
_NVIDIA = Path("/proc/driver/nvidia/version")
_NEEDED = ("torch", "transformers", "safetensors", "reasoning_gym", "msgspec", "PyNaCl")
_TOOL_S = 10.0
# What the scorer process must fail at when it tries.
_OUT_OF_REACH = ("can_open_file", "can_open_socket")


def python() -> Check:
    """The interpreter and the platform."""
    found = f"{sys.version.split()[0]} on {sys.platform} ({os.uname().machine})"
    if sys.version_info < _PYTHON:
        return problem("python", found, "use Python 3.11 or newer")
    if sys.platform != "linux":
        return warning("python", found, "tested on Linux alone; report what does not work")
    return ok("python", found)


def packages() -> Check:
    """The libraries that a node cannot do without, by their metadata: they are not loaded."""
    versions, missing = [], []
    for name in _NEEDED:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return problem(
            "packages", f"{', '.join(missing)} missing", "pip install swarmnode again, whole"
        )
    return ok("packages", f"swarmnode {metadata.version('swarmnode')}, {', '.join(versions)}")


def gpu(device: str) -> Check:
    """What torch sees and what the driver is; `device` is the setting model.device."""
    import torch

    driver = _driver()
    if device != "cpu" and torch.cuda.is_available():
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            return problem(
                "gpu", f"{device} asked for, torch sees {count}", "use --device auto or a lower one"
            )
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        return ok(
            "gpu",
            f"{name}, {free / _GB:.1f} of {total / _GB:.1f} GB free, {count} in all, driver "
            f"{driver or 'unknown'}, CUDA {torch.version.cuda}",
        )
    if device == "cpu":
        return ok("gpu", "not used: device is cpu")
    built = f"torch {torch.__version__}"
    if driver and torch.version.cuda is None:
        return problem(
            "gpu", f"there is an NVIDIA driver ({driver}), but {built} is built for the CPU",
            "install a torch with CUDA (pip install torch from PyPI), or use --device cpu",
        )  # fmt: skip
    if driver:
        return problem(
            "gpu", f"driver {driver} is there, but {built} (CUDA {torch.version.cuda}) sees no GPU",
            "update the driver, give the container its GPUs (--gpus all), or use --device cpu",
        )  # fmt: skip
    if device.startswith("cuda"):
        return problem(
            "gpu", f"{device} asked for, there is no NVIDIA driver", "install one, or --device auto"
        )
    return ok("gpu", f"none: the model is trained on the CPU ({built})")


def cores(threads: int) -> Check:
    """Cores that this process may use against the threads that are asked for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    usable = usable or 1
    load = os.getloadavg()[0]
    found = f"{usable} usable, load {load:.1f}"
    if threads > usable:
        return warning("cores", f"{found}, {threads} threads asked for", f"--threads {usable}")
    if load > 2 * usable:
        return warning("cores", found, "the machine is busy: rounds will take long")
    return ok("cores", found)


def open_files() -> Check:
    """How many files and connections the process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} allowed"
    fix = f"ulimit -n {min(65_536, hard) if hard > 0 else 65_536}, or LimitNOFILE= in systemd"
    if 0 <= soft < _FEW_FILES:
        return problem("open files", found, fix)
    if 0 <= soft < _ENOUGH_FILES:
        return warning("open files", found, fix)
    return ok("open files", found)


def clock(now: float) -> Check:
    """Whether the clock can be right: not before the program was installed, and kept by NTP as far
    as systemd knows. `now` is in Unix seconds."""
    installed = Path(__file__).stat().st_mtime
    if now < installed - 86_400:
        return problem(
            "clock", "it is earlier than when this program was installed",
            "set the clock, best by NTP: peers refuse what is minutes old or from the future",
        )  # fmt: skip
    kept = _timedatectl()
    if kept == "no":
        return warning(
            "clock", "not kept by NTP", "timedatectl set-ntp true: peers refuse what is from the "
            "future by more than 2 minutes",
        )  # fmt: skip
    return ok("clock", "kept by NTP" if kept == "yes" else "plausible; whether NTP keeps it is "
              "not known here")  # fmt: skip


def key(directory: Path) -> Check:
    """The node's key in its run directory."""
    path = directory / "identity.key"
    if not path.exists() and not path.is_symlink():
        return ok("key", f"{path} is made at the first start")
    try:
        me = identity.load(path)
    except SwarmNodeError as error:
        return problem("key", str(error), f"see above; copies: swarmnode keys import --key {path}")
    return ok("key", f"{path} is {me.peer_id}, readable by you alone")


def sandbox() -> Check:
    """How well strangers' texts are locked in: starts the scorer process and has it try."""
    from swarmnode.tasks.scorer import Scorer

    scorer = Scorer("whole", time_limit_s=_TOOL_S)
    try:
        scorer.open()
        found = scorer.probe()
    except SwarmNodeError as error:
        return problem("sandbox", str(error), "scores need this process: see the message")
    finally:
        scorer.close()
    reached = [name for name in _OUT_OF_REACH if found[name]]
    if reached:
        return problem("sandbox", f"the scorer process {' and '.join(reached)}", "report this")
    if scorer.missing:
        return warning(
            "sandbox",
            f"this kernel lacks {', '.join(scorer.missing)}; the limits hold without",
            "use a newer kernel, or allow user name spaces and seccomp in the container",
        )
    return ok(
        "sandbox", f"no file, network or process in reach (Landlock {found['landlock']}, seccomp)"
    )


def disk(directory: Path, needed_bytes: int) -> Check:
    """Free disk where the run is, against `needed_bytes` for checkpoints and export."""
    where = directory.absolute()
    while not where.exists():
        where = where.parent
    if not os.access(where, os.W_OK):
        return problem("disk", f"{where} is not writable", "choose another folder with --run")
    free = shutil.disk_usage(where).free
    found = f"{_size(free)} free in {where}, {_size(needed_bytes)} needed"
    fix = "free some, lower run.keep_checkpoints, or choose another folder with --run"
    if free < needed_bytes:
        return problem("disk", found, fix)
    if free < 2 * needed_bytes + _GB // 10:
        return warning("disk", found, fix)
    return ok("disk", found)


def _driver() -> str:
    """The version of the NVIDIA driver; empty without one."""
    try:
        first = _NVIDIA.read_text().partition("\n")[0].split()
    except OSError:
        pass
    else:
        return next((word for word in first if word[:1].isdigit() and "." in word), "unknown")
    program = shutil.which("nvidia-smi")  # WSL has no such file
    if program is None:
        return ""
    said = _said([program, "--query-gpu=driver_version", "--format=csv,noheader"])
    return said.partition("\n")[0].strip()


def _timedatectl() -> str:
    """ "yes", "no", or "" where systemd does not tell."""
    program = shutil.which("timedatectl")
    if program is None:
        return ""
    said = _said([program, "show", "--property=NTPSynchronized", "--value"]).strip()
    return said if said in ("yes", "no") else ""


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=False)  # noqa: S603  found in PATH, fixed arguments
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB / 10 else f"{count / 10**6:.1f} MB"
