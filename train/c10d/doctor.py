# Prints what a build needs and what this machine has: `just doctor`.
"""One table, a row each: ok or no, what was found, and for a `no` the cure."""

import contextlib
import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

from libtorch import LINK, ROOT, SUFFIX, describe, is_right, kind_of, linked
from libtorch import version_of
from wheels import CURES, VERSION, free_gb

BUILD_GB = 6


def doctor():
    """Prints the table; True if nothing is missing."""
    rust = re.search(r'rust-version = "(.+?)"', (ROOT / "Cargo.toml").read_text()).group(1)
    space, built = free_gb(ROOT), (ROOT / "target").exists()
    table = [
        tool("rustc", ["rustc", "--version"], CURES["rust"], rust),
        tool("cargo", ["cargo", "--version"], CURES["rust"]),
        tool("just", ["just", "--version"], "`cargo install just --locked`"),
        tool("g++", ["c++", "--version"], CURES["g++"]),
        tool("python3", [sys.executable, "--version"], CURES["python3"], "3.9"),
        tool("pip", [sys.executable, "-m", "pip", "--version"], CURES["pip"]),
        ("libtorch", *libtorch()),
        ("devices", devices(), None),
        ("threads", thread_count(), None),
        ("memory", memory(), None),
        (
            "disk",
            f"{space:.0f} GB free in {ROOT}",
            None if built or space > BUILD_GB else f"make room: a first build takes {BUILD_GB} GB",
        ),
    ]
    for name, found, cure in table:
        print(f"{'no' if cure else 'ok'}  {name:<9} {found}" + (f"; {cure}" if cure else ""))
    missing = [name for name, _, cure in table if cure]
    print(f"\nmissing: {', '.join(missing)}" if missing else "\nready to build: `just demo`")
    return not missing


def tool(name, command, cure, least=None):
    """A row of the table for a program that can say its version."""
    version = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        version = re.search(r"\d+\.\d+(\.\d+)*", said).group(0)
    if version is None:
        return name, "missing", cure
    numbers = [[int(number) for number in text.split(".")] for text in (version, least or "0")]
    if numbers[0] < numbers[1]:
        return name, f"{version}, and {least} is needed", cure
    return name, version, None


def libtorch():
    """What .libtorch/ holds, and the cure if it does not serve."""
    version = version_of(linked())
    if not is_right(version):
        return f"{version}, and {VERSION} is needed" if version else "missing", "`just setup`"
    try:
        ctypes.CDLL(str(LINK / "lib" / f"libtorch_cpu{SUFFIX}"))
    except OSError as error:
        return f"does not load: {error}", f"delete {LINK.name} and run `just setup`"
    return describe(), None


def devices():
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")
        names = [name.strip() for name in said if name.strip()]
        hint = "" if kind_of(LINK) == "cuda" else " (`just setup cuda` to use them)"
        return "; ".join(names) + hint if names else "CPU only"
    return "CPU only"


def thread_count():
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()


def memory():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    with contextlib.suppress(OSError):
        available = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
        return f"{total:.0f} GB, {int(available.group(1)) / 1e6:.0f} GB available"
    return f"{total:.0f} GB"


if __name__ == "__main__":
    sys.exit(0 if doctor() else 1)
