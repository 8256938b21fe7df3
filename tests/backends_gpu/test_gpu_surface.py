"""The names and arities of TensorRT that we use, held against the real bindings of 10 and 11, and the fake against both.

The bindings are NVIDIA's and not part of this repository: pip fetches them for this test alone, which skips where that or
a C compiler, is not to be had. Their libraries are replaced by empty functions, so that the module loads without a GPU.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import Faults, fake_module

SURFACE: dict[str, Any] = json.loads(Path(__file__).with_name("tensorrt_surface.json").read_text(encoding="utf-8"))
VERSIONS = {10: "10.16.1.11", 11: "11.4.0.106"}
_SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL", "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion", "getPluginRegistry", "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
)  # fmt: skip
_PROBE = """
import ctypes, inspect, json, sys
site, surface, *libraries = sys.argv[1:]
for path in libraries:
    ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, site)
import tensorrt_bindings as trt
wanted, found = json.load(open(surface)), {"version": trt.__version__, "classes": {}, "enums": {}}
def resolve(name):
    part = trt
    for word in name.split("."):
        part = getattr(part, word)
    return part
for name, methods in wanted["classes"].items():
    kind = getattr(trt, name, None)
    found["classes"][name] = None if kind is None else {
        m: getattr(getattr(kind, m.lstrip("."), None), "__doc__", None) or ("" if hasattr(kind, m.lstrip(".")) else None)
        for m in methods
    }
for name in wanted["enums"]:
    found["enums"][name] = sorted(resolve(name).__members__)
class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, msg):
        pass
found["ordered"] = bool(trt.ILogger.Severity.ERROR <= trt.ILogger.Severity.WARNING < trt.ILogger.Severity.INFO)
class Monitor(trt.IProgressMonitor):
    def __init__(self):
        trt.IProgressMonitor.__init__(self)
    def phase_start(self, phase_name, parent_phase, num_steps): pass
    def step_complete(self, phase_name, step): return True
    def phase_finish(self, phase_name): pass
Monitor()
try:
    trt.Builder(Log())
    found["builder"] = "made"
except TypeError as error:
    found["builder"] = str(error)
print(json.dumps(found))
"""


def _stubs(folder: Path, major: int) -> list[Path]:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here, so the stub libraries cannot be made")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}() {{ return 0; }}\n" for name in _SYMBOLS), encoding="utf-8")
    made = []
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        path = folder / f"{name}.so.{major}"
        subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)], check=True)
        made.append(path)
    return made


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the real bindings of one version say of the names we use."""
    if sys.platform != "linux":
        pytest.skip("the stub libraries are made for Linux")
    folder = tmp_path_factory.mktemp(f"tensorrt{request.param}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--retries",
        "0",
        "--timeout",
        "20",
    ]
    wanted = f"tensorrt_cu13_bindings=={VERSIONS[request.param]}"
    try:
        got = subprocess.run([*command, "-d", str(folder), wanted], capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} could not be fetched in time")
    wheels = list(folder.glob("*.whl"))
    if got.returncode or not wheels:
        pytest.skip(f"{wanted} cannot be fetched here")
    zipfile.ZipFile(wheels[0]).extractall(folder / "site")
    surface = Path(__file__).with_name("tensorrt_surface.json")
    libraries = [str(path) for path in _stubs(folder, request.param)]
    ran = subprocess.run(
        [sys.executable, "-c", _PROBE, str(folder / "site"), str(surface), *libraries],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _accepts(document: str, name: str, arguments: list[str]) -> bool:
    """Whether a signature line of the docstring takes exactly our arguments, in their order."""
    for line in re.findall(rf"{re.escape(name)}\(self: [^,)]+(?:, )?(.*)\) -> ", document):
        parts = re.findall(r"(\w+): ((?:[^,\[<(]|\[[^\]]*\]|<[^>]*>|\([^)]*\))+)", line)
        names, needed = [part for part, _ in parts], [part for part, kind in parts if "=" not in kind]
        if names[: len(arguments)] == arguments and len(needed) <= len(arguments):
            return True
    return False


def test_every_name_and_arity_is_in_the_real_bindings(bindings: dict[str, Any]) -> None:
    wrong = []
    for kind, methods in SURFACE["classes"].items():
        real = bindings["classes"][kind]
        for method, arguments in methods.items() if real is not None else [("", [])]:
            document = None if real is None else real[method]
            if document is None or (method[:1] not in (".", "") and not _accepts(document, method, arguments)):
                wrong.append(f"{kind}.{method}({', '.join(arguments)}): {document}")
    assert not wrong, "\n".join(wrong)


def test_every_enum_member_is_in_the_real_bindings(bindings: dict[str, Any]) -> None:
    for name, members in SURFACE["enums"].items():
        assert set(members) <= set(bindings["enums"][name]), name


def test_the_real_bindings_behave_as_our_code_counts_on(bindings: dict[str, Any]) -> None:
    """Severities compare, monitors and loggers can be derived, and a builder without a GPU is a TypeError."""
    assert bindings["ordered"]
    assert "nullptr" in bindings["builder"]


def test_the_check_notices_what_version_11_took_away(bindings: dict[str, Any]) -> None:
    """The list of names could be empty and all of this would pass: so ask it for something that is gone."""
    assert not _accepts(bindings["classes"]["Builder"]["create_network"], "create_network", ["flags", "precision"])
    assert not _accepts(bindings["classes"]["OnnxParser"]["parse"], "parse", ["bytes"])


def test_the_fake_has_this_surface_and_no_other() -> None:
    module = fake_module(Faults())
    for kind, methods in SURFACE["classes"].items():
        part = getattr(module, kind)
        for method, arguments in methods.items():
            if method.startswith("."):
                assert hasattr(part, method[1:]) or method[1:] in inspect.getsource(part.__init__), (kind, method)
            elif method != "__init__" or arguments:
                assert list(inspect.signature(getattr(part, method)).parameters)[1:] == arguments, (kind, method)
        public = {name for name, value in vars(part).items() if not name.startswith("_") and callable(value)} - {"Severity"}
        assert public <= set(methods), (kind, public - set(methods))
    for name, members in SURFACE["enums"].items():
        part = module
        for word in name.split("."):
            part = getattr(part, word)
        assert set(part.__members__) == set(members), name


def test_our_monitor_overrides_what_the_bindings_call() -> None:
    from atomid_live.backends.tensorrt_build import _monitor

    monitor = type(_monitor(fake_module(Faults()), print))
    for method, arguments in SURFACE["overridden"]["IProgressMonitor"].items():
        assert list(inspect.signature(getattr(monitor, method)).parameters)[1:] == arguments
