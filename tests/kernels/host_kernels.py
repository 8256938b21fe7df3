"""The CUDA sources as ordinary C++: the same text, compiled by this machine's compiler, each thread run one after another.

What this proves: indexing, arithmetic, borders, tie rules, and that no result depends on the order of threads (the order is a
permutation chosen by `stride`). What it does not: launch code, memory spaces, and true concurrency.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from atomid_live.kernels.launch import BLOCK, source

_SHIM = """
#include <cmath>
#include <cstring>
using namespace std;
#define __global__
#define __device__
struct Place { int x, y, z; };
static thread_local Place blockIdx, threadIdx, blockDim;
static int __float_as_int(float v) { int i; memcpy(&i, &v, 4); return i; }
static float __int_as_float(int i) { float v; memcpy(&v, &i, 4); return v; }
static double __longlong_as_double(long long i) { double v; memcpy(&v, &i, 8); return v; }
static int atomicAdd(int* at, int v) { int old = *at; *at = old + v; return old; }
static int atomicMax(int* at, int v) { int old = *at; if (v > old) *at = v; return old; }
"""
_SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)', re.S)
_MACRO = re.compile(r"^TO_FLOAT\((\w+), ([\w ]+)\)$", re.M)


def _signatures(text: str) -> dict[str, list[str]]:
    found = {
        name: [part.strip() for part in arguments.split(",")] for name, arguments in _SIGNATURE.findall(text) if name != "NAME"
    }
    for name, kind in _MACRO.findall(text):
        found[name] = [f"const {kind}* raw", "float* image", "const double* P", "int n"]
    return found


def _runner(name: str, arguments: list[str]) -> str:
    names = [re.split(r"[ *]+", part)[-1] for part in arguments]
    return (
        f'extern "C" void run_{name}({", ".join(arguments)}, int threads, int stride) {{\n'
        f"  blockDim.x = {BLOCK};\n"
        "  for (long long t = 0; t < threads; ++t) {\n"
        f"    int at = (int)(t * stride % threads); blockIdx.x = at / {BLOCK}; threadIdx.x = at % {BLOCK};\n"
        f"    {name}({', '.join(names)});\n  }}\n}}\n"
    )


@cache
def host_library() -> tuple[Any, dict[str, list[str]]]:
    """Compile once per test run; skips where there is no C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here, so the CUDA sources cannot be run on the processor")
    text = source()
    signatures = _signatures(text)
    folder = Path(mkdtemp(prefix="atomid-kernels-"))
    (folder / "kernels.cpp").write_text(_SHIM + text + "".join(_runner(*item) for item in signatures.items()), encoding="utf-8")
    command = [compiler, "-O2", "-std=c++17", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command += ["-o", str(folder / "kernels.so"), str(folder / "kernels.cpp")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    library = ctypes.CDLL(str(folder / "kernels.so"))
    shutil.rmtree(folder, ignore_errors=True)
    return library, signatures


class HostLauncher:
    """Stands where `CudaLauncher` stands, on processor tensors.

    Parameters
    ----------
    stride : int
        Thread number t * stride modulo the thread count runs as number t; 1 is the natural order.
    """

    def __init__(self, stride: int = 1) -> None:
        import torch

        self.device = torch.device("cpu")
        self._library, self._signatures = host_library()
        self._stride = stride
        self.launches: list[tuple[str, int]] = []

    def __call__(self, kernel: str, threads: int, *arguments: Any) -> None:
        expected = self._signatures[kernel]
        values: list[Any] = []
        for argument, form in zip((*arguments, threads), expected, strict=True):
            if isinstance(argument, int):
                assert form.startswith("int "), (kernel, form, argument)
                values.append(ctypes.c_int(argument))
            else:
                assert argument.is_contiguous(), (kernel, form)
                assert _fits(str(argument.dtype), form), (kernel, form, argument.dtype)
                values.append(ctypes.c_void_p(argument.data_ptr()))
        stride = self._stride
        while threads > 1 and _common(stride, threads) != 1:
            stride += 1
        self.launches.append((kernel, threads))
        self._library[f"run_{kernel}"](*values, ctypes.c_int(threads), ctypes.c_int(stride))


def _common(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


_TYPES = {
    "float": "torch.float32", "double": "torch.float64", "int": "torch.int32", "long long": "torch.int64",
    "short": "torch.int16", "unsigned char": "torch.uint8", "signed char": "torch.int8", "unsigned short": "torch.uint16",
    "unsigned int": "torch.uint32",
}  # fmt: skip


def _fits(dtype: str, form: str) -> bool:
    kind = form.replace("const ", "").replace("volatile ", "").split("*")[0].strip()
    return _TYPES[kind] == dtype
