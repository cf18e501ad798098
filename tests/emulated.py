"""Code run as on other processors, by Debian's ``qemu-user``: what they compute is to be equal to the bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.shards import processor

PROCESSORS = ("EPYC-Rome", "Haswell")  # AMD's and Intel's, with AVX2 and without AVX-512
_QEMU = shutil.which("qemu-x86_64")

needs_qemu = pytest.mark.skipif(
    _QEMU is None or not processor.offered().startswith("x86-64-v"),
    reason="other processors are emulated by qemu-x86_64: `apt-get install qemu-user`",
)


def unpinned() -> dict[str, str]:
    """Return the environment of a process that inherits nothing of this one's pin."""
    environment = processor.environment(processor.NATIVE)
    del environment[processor.VARIABLE]
    return environment


def emulated(code: str, kind: str = "") -> str:
    """Return what Python code prints on a kind of processor, or on this one, in a process with no pin of its parent."""
    emulator = [str(_QEMU), "-cpu", kind] if kind else []
    command = [*emulator, sys.executable, "-c", code]
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(command, env=unpinned(), cwd=root, capture_output=True, text=True, check=True).stdout
