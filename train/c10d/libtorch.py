# Finds or prepares the libtorch that this checkout builds against: `just setup [cpu|cuda]`.
"""The result is .libtorch/ at the top of the checkout: `lib` and `include` (links) and
`build-version`. .cargo/config.toml points plain cargo commands and built binaries at it.

Where libtorch comes from, first match wins:
  1. LIBTORCH, if set: an unpacked libtorch, or the torch folder of a Python installation;
  2. the torch that this python3 would import, if it is of the right version;
  3. the published wheels (wheels.py), kept in a per-user cache that every checkout shares.
"""

import contextlib
import errno
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wheels import CACHE, CURES, VERSION, Problem, prepare_cpu, prepare_cuda, prepare_headers

ROOT = Path(__file__).resolve().parents[2]
LINK = ROOT / ".libtorch"
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
DOWNLOADS_HERE = (sys.platform, platform.machine()) == ("linux", "x86_64")


def setup(kind):
    """Makes .libtorch/; `kind` is "cpu", "cuda", or "" for what is there, else CPU."""
    for tool, cure in (("cargo", CURES["rust"]), ("c++", CURES["g++"]), ("cc", CURES["g++"])):
        if not shutil.which(tool):
            raise Problem(f"{tool} was not found: {cure}")
    if not is_ready(kind):
        CACHE.mkdir(parents=True, exist_ok=True)
        with one_at_a_time():
            link(from_environment(kind) or from_python(kind) or prepare(kind or "cpu"))
    print(f"libtorch {describe()} is ready")


def is_ready(kind):
    """Whether .libtorch/ already is what is asked for."""
    if not is_right(version_of(linked())) or (kind and kind_of(LINK) != kind):
        return False
    chosen = environment_folder()
    return chosen is None or os.path.samefile(chosen / "lib", LINK / "lib")


def linked():
    """The folder that .libtorch/ leads to."""
    return (LINK / "lib").resolve().parent


def describe():
    return f"{version_of(linked()).split('+')[0]} ({kind_of(LINK)}) from {linked()}"


def version_of(folder):
    """The version of a libtorch or torch folder, or None if it is not one that we can use."""
    if not (folder / "lib" / f"libtorch_cpu{SUFFIX}").exists():
        return None
    for name, pattern in (("build-version", r"(\S+)"), ("version.py", r"__version__ = '(\S+)'")):
        with contextlib.suppress(OSError):
            found = re.search(pattern, (folder / name).read_text())
            if found:
                return found.group(1)
    return "of unknown version"


def kind_of(folder):
    return "cuda" if (folder / "lib" / "libtorch_cuda.so").exists() else "cpu"


def is_right(version):
    return re.fullmatch(re.escape(VERSION) + r"(\+(cpu|cu\d+))?", version or "") is not None


def environment_folder():
    """LIBTORCH, unless it is only cargo pointing at this checkout's own .libtorch."""
    value = os.environ.get("LIBTORCH")
    if not value or Path(value).absolute() == LINK:
        return None
    folder = Path(value).absolute()
    if version_of(folder) is None:
        raise Problem(
            f"LIBTORCH={value} holds no lib/libtorch_cpu{SUFFIX}: point it at a libtorch "
            f"{VERSION}, or unset it and run `just setup` again"
        )
    return folder


def from_environment(kind):
    folder = environment_folder()
    if folder is None:
        return None
    version = version_of(folder)
    if not is_right(version):
        raise Problem(
            f"LIBTORCH={folder} is libtorch {version}, and {VERSION} is needed: point it there, "
            "or unset it and run `just setup` again"
        )
    if kind and kind_of(folder) != kind:
        raise Problem(
            f"LIBTORCH={folder} is a {kind_of(folder)} libtorch, and `just setup {kind}` was asked "
            "for: unset LIBTORCH and run it again"
        )
    return folder


def from_python(kind):
    """The folder of an importable torch; it is found, not imported, which would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    folder = Path(spec.origin).parent
    version = version_of(folder)
    if version is None:
        return None
    if not is_right(version) or (kind and kind_of(folder) != kind):
        print(f"passing over the Python torch {version} ({kind_of(folder)}) of {folder}")
        return None
    return folder


def link(folder):
    """Replaces .libtorch/ by links into `folder`, whole."""
    before = kind_of(LINK) if LINK.exists() else None
    new = Path(tempfile.mkdtemp(prefix=".libtorch-", dir=ROOT))
    new.chmod(0o755)
    for name in ("lib", "include"):
        (new / name).symlink_to(folder / name)
    (new / "build-version").write_text(version_of(folder) + "\n")
    if kind_of(folder) == "cuda" and not has_cuda_headers(folder):
        link_headers(new)
    if os.path.lexists(LINK):
        old = new.with_name(new.name + ".old")
        LINK.rename(old)
        new.rename(LINK)
        shutil.rmtree(old)
    else:
        new.rename(LINK)
    if before not in (None, kind_of(LINK)) and (ROOT / "target").exists():
        # Cargo does not see that other libraries are there to link: make it look again.
        subprocess.run(["cargo", "clean", "--quiet", "-p", "torch-sys"], cwd=ROOT, check=False)


def has_cuda_headers(folder):
    """Whether what NCCL's headers need stands beside a CUDA torch, or in a CUDA toolkit."""
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    includes = (folder.resolve().parent / "nvidia/cu13/include", toolkit / "include")
    return any((include / "crt/host_defines.h").exists() for include in includes)


def link_headers(new):
    """Adds `headers`: the CUDA headers that torch's own packages leave out."""
    try:
        (new / "headers").symlink_to(prepare_headers() / "nvidia/cu13/include")
    except Problem as problem:
        print(f"warning: without CUDA's headers there is no NCCL: {problem}", flush=True)


@contextlib.contextmanager
def one_at_a_time():
    """Lets one set-up of this user run; the lock ends with the process, however it ends."""
    with open(CACHE / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another `just setup` to finish", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(kind):
    """The cache's libtorch of this kind, made if it is not there. It appears whole, by a rename."""
    done = CACHE / f"{VERSION}-{kind}"
    folder = done / "torch" if kind == "cuda" else done
    if version_of(folder) is not None:
        return folder
    if not DOWNLOADS_HERE:
        raise Problem(
            f"libtorch is prepared on Linux x86-64 only: here, `python3 -m pip install "
            f"torch=={VERSION}` (in a virtual environment, activated), then run `just setup` again"
        )
    (prepare_cuda if kind == "cuda" else prepare_cpu)(done)
    return folder


def main(arguments):
    try:
        if sys.version_info < (3, 9):
            raise Problem(f"Python {platform.python_version()} is too old: {CURES['python3']}")
        kind = "".join(arguments)
        if kind not in ("", "cpu", "cuda"):
            raise Problem(f"`just setup` takes cpu, cuda or nothing, not {kind}")
        setup(kind)
    except Problem as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; `just setup` goes on where it was")
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            sys.exit("error: the disk is full: make room and run `just setup` again; it goes on")
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main(sys.argv[1:])
