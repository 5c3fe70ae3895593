# Tests of the set-up script against a small local package index; run by setup.rs.
"""The scripts run as they stand, copied into a scratch checkout, with the real pip, except that
the wheel is a small one made here. Needs no network."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "train/c10d"
WHEEL = "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"
LIBRARY = os.urandom(300_000)

# Changes one thing of the script's world; the rest is as the user has it.
PREAMBLE = """
import sys; sys.path.insert(0, "train/c10d")
import libtorch, wheels
wheels.CPU_SLICES = [wheels.Slice("torch", "2.11.0", {wheel!r}, {start}, {end}, {sha256!r},
    r"torch/(include/.+|lib/libtorch_cpu\\.so)")]
wheels.time.sleep = lambda seconds: None
{patch}
libtorch.main(sys.argv[1:])
"""
NO_TORCH = "libtorch.from_python = lambda kind: None"
# A pip that does not tell which files its indexes list.
SILENT_PIP = """
pip = wheels.pip
wheels.pip = lambda words, *rest, **named: pip([w for w in words if w != "-vv"], *rest, **named)
"""


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with one wheel, with the habits that `server.habit` names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/simple/"):
            return self.answer(200, f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html")
        habit, wheel = self.server.habit, self.server.wheel
        by_pip = self.headers.get("User-Agent", "").startswith("pip/")
        if habit == "password" and not by_pip:
            return self.answer(403, b"no")
        if habit == "other file":
            wheel = bytes(len(wheel))
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if span is None or habit == "no ranges":
            return self.answer(200, wheel)
        self.answer(206, wheel[int(span.group(1)) : int(span.group(2)) + 1])

    def answer(self, status, body, kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body
        if status == 206 and self.server.habit == "cuts":
            sent = body[: len(body) // 4]
            self.close_connection = True
        self.wfile.write(sent)
        if status == 206:
            self.server.sent += len(sent)

    def log_message(self, *_):
        pass


class Setup(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkout = self.clone("checkout")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.server.habit, self.server.sent = "", 0
        self.server.wheel, self.cut = make_wheel(self.folder / WHEEL)
        self.index = f"http://127.0.0.1:{self.server.server_port}/simple"

    def clone(self, name):
        checkout = self.folder / name
        (checkout / "train/c10d").mkdir(parents=True)
        for script in ("libtorch.py", "wheels.py"):
            shutil.copy(SCRIPTS / script, checkout / "train/c10d")
        return checkout

    def start(self, *arguments, patch=NO_TORCH, checkout=None, **environment):
        code = PREAMBLE.format(patch=patch, wheel=WHEEL, **self.cut)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        kept.pop("LIBTORCH", None)
        kept.update(XDG_CACHE_HOME=str(self.folder / "cache"), NO_PROXY="127.0.0.1")
        kept.update(PIP_INDEX_URL=self.index, PIP_CONFIG_FILE=os.devnull, **environment)
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=checkout or self.checkout,
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def succeeds(self, says, *arguments, **options):
        process = self.start(*arguments, **options)
        said = process.communicate()[0]
        self.assertEqual(process.returncode, 0, said)
        self.assertIn(says, said)

    def fails(self, *says, **options):
        """One line, beginning with `error:`, that says each of `says`."""
        process = self.start(**options)
        said = process.communicate()[0].strip().split("\n")[-1]
        self.assertEqual(process.returncode, 1, said)
        self.assertTrue(said.startswith("error: "), said)
        for text in says:
            self.assertIn(text, said)

    def torch(self, name, version, library="libtorch_cpu.so"):
        folder = self.folder / name / "torch"
        (folder / "lib").mkdir(parents=True)
        (folder / "include").mkdir()
        for file in {"libtorch_cpu.so", library}:
            (folder / "lib" / file).touch()
        (folder / "__init__.py").write_text("raise RuntimeError('not to be imported')")
        (folder / "version.py").write_text(f"__version__ = '{version}'\n")
        return folder

    def test_wheels_once_for_all_checkouts(self):
        self.succeeds("100% of 0 MB")
        link = self.checkout / ".libtorch"
        self.assertEqual((link / "lib/libtorch_cpu.so").read_bytes(), LIBRARY)
        self.assertEqual((link / "include/torch/a.h").read_text(), "// a header\n")
        self.assertEqual((link / "build-version").read_text(), "2.11.0+cpu\n")
        cached = os.listdir(self.folder / "cache/s1-libtorch")
        self.assertEqual(sorted(cached), ["2.11.0-cpu", "lock"])
        before = link.stat()
        self.index = "http://127.0.0.1:9/simple"
        self.succeeds("is ready")
        self.assertEqual(link.stat(), before)
        second = self.clone("second checkout")
        self.succeeds("is ready", checkout=second)
        self.assertTrue((second / ".libtorch/lib").samefile(link / "lib"))

    def test_two_at_once_download_once(self):
        both = [self.start() for _ in range(2)]
        for process in both:
            said = process.communicate()[0]
            self.assertEqual(process.returncode, 0, said)
        self.assertEqual(self.server.sent, self.cut["end"] - self.cut["start"])

    def test_goes_on_after_a_broken_download(self):
        self.server.habit = "cuts"
        self.fails(WHEEL, "ended early", "goes on where it stopped")
        self.server.habit = ""
        self.succeeds("is ready")
        self.assertEqual(self.server.sent, self.cut["end"] - self.cut["start"])

    def test_server_without_ranges(self):
        self.server.habit = "no ranges"
        self.succeeds("is ready")

    def test_index_that_only_pip_may_read(self):
        self.server.habit = "password"
        self.succeeds("to pip, which downloads all of it")

    def test_pip_that_does_not_say_where(self):
        self.succeeds("to pip, which downloads all of it", patch=NO_TORCH + SILENT_PIP)
        self.assertEqual(self.server.sent, 0)

    def test_other_file(self):
        self.server.habit = "other file"
        self.fails(WHEEL, "SHA-256", "was deleted")
        self.assertEqual(os.listdir(self.folder / "cache/s1-libtorch/2.11.0-cpu.parts"), [])

    def test_no_network(self):
        self.index = "http://127.0.0.1:9/simple"
        self.fails("pip could not download", WHEEL, "check the network", PIP_RETRIES="0")

    def test_missing_things(self):
        tools = self.folder / "tools"
        tools.mkdir()
        (tools / "cargo").symlink_to(shutil.which("true"))
        for patch, path, says in (
            ("", tools, ["c++ was not found", "apt-get install g++"]),
            ("sys.version_info = (3, 8)", None, ["too old", "3.9"]),
            ("wheels.importlib.util.find_spec = lambda name: None", None, ["no pip", "apt-get"]),
            (f"{NO_TORCH}; wheels.free_gb = lambda folder: 0.3", None, ["0.8 GB", "0.3 GB are"]),
            (f"{NO_TORCH}; libtorch.DOWNLOADS_HERE = False", None, ["pip install torch==2.11.0"]),
        ):
            with self.subTest(says=says):
                environment = {"PATH": str(path)} if path else {}
                self.fails(*says, patch=patch, **environment)

    def test_libtorch_of_the_user(self):
        cpu, old = self.torch("cpu", "2.11.0+cpu"), self.torch("old", "2.9.1")
        cuda = self.torch("cuda", "2.11.0+cu130", "libtorch_cuda.so")
        (cuda.parent / "nvidia/cu13/include/crt").mkdir(parents=True)
        (cuda.parent / "nvidia/cu13/include/crt/host_defines.h").touch()
        self.fails("holds no lib/libtorch_cpu.so", LIBTORCH=str(self.folder))
        self.fails("is libtorch 2.9.1", "2.11.0 is needed", LIBTORCH=str(old))
        self.succeeds(f"2.11.0 (cpu) from {cpu}", LIBTORCH=str(cpu))
        self.succeeds(f"2.11.0 (cpu) from {cpu}", LIBTORCH=str(self.checkout / ".libtorch"))
        self.succeeds(f"2.11.0 (cuda) from {cuda}", LIBTORCH=str(cuda))
        self.succeeds(f"2.11.0 (cuda) from {cuda}")

    def test_torch_of_python(self):
        good, old = self.torch("good", "2.11.0+cpu"), self.torch("old", "2.9.1")
        self.succeeds("passing over the Python torch 2.9.1", patch="", PYTHONPATH=str(old.parent))
        shutil.rmtree(self.checkout / ".libtorch")
        self.succeeds(f"2.11.0 (cpu) from {good}", patch="", PYTHONPATH=str(good.parent))


def make_wheel(path):
    """A wheel of three parts, and the slice that leaves the first and the last out."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("torch/__init__.py", "raise ImportError\n" * 100)
        start = wheel.start_dir
        wheel.writestr("torch/include/torch/a.h", "// a header\n")
        wheel.writestr("torch/lib/libtorch_cpu.so", LIBRARY)
        end = wheel.start_dir
        wheel.writestr("torch/lib/libtorch_cuda.so", LIBRARY)
        about = "torch-2.11.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\n")
    whole = path.read_bytes()
    digest = hashlib.sha256(whole[start:end]).hexdigest()
    return whole, {"start": start, "end": end, "sha256": digest}


if __name__ == "__main__":
    unittest.main()
