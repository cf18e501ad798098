"""The instruction set that a run computes with: floats follow it to the last bit, so it is pinned (law 1).

Libraries choose their kernels by what the processor offers, when they are loaded or first called, and each has a
variable of the environment that limits the choice. ``import gristmill`` sets these variables in its process, and so in
those that it starts: to the level in ``GRISTMILL_PROCESSOR``, otherwise to x86-64-v3 (AVX2 and FMA), which machines
since about 2015 share. Nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from gristmill.shards.errors import UserError

Level = Literal["x86-64-v2", "x86-64-v3", "x86-64-v4", "native"]
LEVELS: tuple[str, ...] = get_args(Level)
PINNED, NATIVE = LEVELS[:3], LEVELS[3]
NOT_RECORDED = "not recorded"
DEFAULT: Level = "x86-64-v3"
VARIABLE = "GRISTMILL_PROCESSOR"

# What a machine of each level has beside the features of the level before, as Linux names them (x86-64 psABI).
_FEATURES = {
    "x86-64-v2": "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3",
    "x86-64-v3": "abm avx avx2 bmi1 bmi2 f16c fma movbe",
    "x86-64-v4": "avx512bw avx512cd avx512dq avx512f avx512vl",
}
# Variable of a library -> its value at each level; "" is none. Without MKL, CTranslate2 computes alike on Intel's and
# AMD's processors.
_LIMITS = {
    "ATEN_CPU_CAPABILITY": ("default", "avx2", "avx512"),  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX2", "AVX512_CORE"),  # of torch and of CTranslate2
    "MKL_ENABLE_INSTRUCTIONS": ("SSE4_2", "AVX2", "AVX512"),  # of torch
    "MKL_CBWR": ("", "", ""),  # of torch; any value changes products: see docs/processors.md
    "FBGEMM_ENABLE_INSTRUCTIONS": ("AVX2", "AVX2", "AVX512"),  # of torch: it has nothing below
    "OPENBLAS_CORETYPE": ("Nehalem", "Haswell", "SkylakeX"),  # of numpy and of scipy
    "NPY_DISABLE_CPU_FEATURES": (
        "X86_V3,X86_V4,AVX512_ICL,AVX512_SPR",
        "X86_V4,AVX512_ICL,AVX512_SPR",
        "AVX512_ICL,AVX512_SPR",
    ),
    "NPY_ENABLE_CPU_FEATURES": ("", "", ""),  # numpy takes only one of the two
    "ARROW_USER_SIMD_LEVEL": ("SSE4_2", "AVX2", "AVX512"),
    "CT2_FORCE_CPU_ISA": ("GENERIC", "AVX2", "AVX512"),
    "CT2_USE_MKL": ("0", "0", "0"),
}
_LOADED = ("numpy", "torch", "ctranslate2")  # modules that have chosen their kernels, or may have
_TORCH = {"x86-64-v2": "DEFAULT", "x86-64-v3": "AVX2", "x86-64-v4": "AVX512"}
_OPENBLAS = {"x86-64-v3": {"Haswell", "Zen"}}  # Zen is Haswell's kernels by another name
_NUMPY = {"x86-64-v2": ("X86_V3", "X86_V4"), "x86-64-v3": ("X86_V4",), "x86-64-v4": ("AVX512_ICL", "AVX512_SPR")}

_given: dict[str, str | None] = {}  # the variables as they were before this process was pinned
_level = ""  # of this process


class LoadedBefore(UserError):
    """Libraries of this process have chosen their kernels by another level. A new process can keep ``level``."""

    def __init__(self, sentence: str, level: str) -> None:
        super().__init__(sentence)
        self.level = level

    def __reduce__(self) -> tuple[type[LoadedBefore], tuple[str, str]]:
        return LoadedBefore, (self.args[0], self.level)


def variables(level: str) -> dict[str, str]:
    """Return the environment of a process that is to compute at a level.

    Example:
        >>> variables("native")
        {'GRISTMILL_PROCESSOR': 'native'}
        >>> variables("x86-64-v3")["OPENBLAS_CORETYPE"]
        'Haswell'
    """
    place = PINNED.index(level) if level in PINNED else None
    limits = {} if place is None else {name: values[place] for name, values in _LIMITS.items() if values[place]}
    return {VARIABLE: level, **limits}


def environment(level: str) -> dict[str, str]:
    """Return this process's environment for a process of another level, with its own pin taken back."""
    kept = {name: value for name, value in os.environ.items() if name not in _LIMITS}
    return kept | {name: value for name, value in _given.items() if value is not None} | variables(level)


def asked() -> str:
    """Return the level that the environment of this process asked for, or the default one."""
    return _given.get(VARIABLE) or DEFAULT


def level() -> str:
    """Return the level of this process."""
    return _level


def label() -> str:
    """Return the level of this process as it is recorded: a native one with what the machine offers."""
    return f"{_level} ({offered()})" if _level == NATIVE else _level


def recorded(labels: Iterable[str]) -> str:
    """Return the levels of results by their labels, "" of those from before levels were recorded, as one text.

    Example:
        >>> recorded(["x86-64-v3", "", "x86-64-v3"])
        'x86-64-v3, not recorded'
    """
    found = set(labels) or {""}
    return ", ".join([*sorted(found - {""}), *([NOT_RECORDED] if "" in found else [])])


@functools.cache
def offered() -> str:
    """Return the highest level that this machine offers; the name of its architecture if that is another one.

    Other systems than Linux do not tell: then it is taken to offer all of them, ``x86-64``.
    """
    machine = platform.machine()
    if machine.lower() not in ("x86_64", "amd64"):
        return machine or "unknown"
    flags = _cpuinfo().get("flags")
    if flags is None:
        return "x86-64"
    found = "x86-64-v1"
    for name, needed in _FEATURES.items():
        if not set(needed.split()) <= set(flags.split()):
            break
        found = name
    return found


def model() -> str:
    """Return the name of this machine's processor."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """Return what Linux says about the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    parts = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in parts}


def _offers(level: str) -> bool:
    offers = offered()
    return offers == "x86-64" or (offers in PINNED and PINNED.index(level) <= PINNED.index(offers))


def pin(level: str | None = None) -> None:
    """Set the variables of this process, for libraries that it loads later, to a level or to the one asked for.

    What a machine does not offer is not set, since kernels that it lacks would end the process; :func:`keep` refuses.
    """
    global _level
    if not _given:
        inherited = {**variables(os.environ.get(VARIABLE, "")), VARIABLE: ""}  # set by a process that started this one
        given = {name: os.environ.get(name) for name in (VARIABLE, *_LIMITS)}
        _given.update((name, None if value == inherited.get(name) else value) for name, value in given.items())
    if level is None:
        level = asked() if _given[VARIABLE] or offered().startswith("x86-64") else NATIVE
    _level = level
    os.environ[VARIABLE] = level
    if level in PINNED:
        for name in _LIMITS:
            os.environ.pop(name, None)
        if _offers(level):
            os.environ.update(variables(level))


def choose(setting: str | None) -> None:
    """Pin this process and those that it starts to the level of a setting, if there is one.

    Raises:
        UserError: this machine does not offer the level.
        LoadedBefore: libraries were loaded at another one.
    """
    keep(setting or _level)


def keep(level: str) -> None:
    """Check that this process computes at a level, and pin the libraries that are not loaded yet.

    Raises:
        UserError: there is no such level, or this machine does not offer it.
        LoadedBefore: libraries were loaded at another one.
    """
    if level not in LEVELS:
        raise UserError(f"{VARIABLE}={level}: expected one of {', '.join(LEVELS)}")
    if level in PINNED and not _offers(level):
        lower = offered() if offered() in PINNED else NATIVE
        raise UserError(
            f"{platform.node()}: its processor ({model()}) offers {offered()}, and {level} was expected, to which "
            f"this run is pinned so that all machines give the same bytes; expected another machine, or for the whole "
            f"run {VARIABLE}={lower} in the environment or processor={lower}"
        )
    if level != _level:
        if level == NATIVE and (loaded := [name for name in _LOADED if name in sys.modules]):
            raise _loaded_before(level, f"{' and '.join(loaded)} pinned to {_level}")
        before = _level
        pin(level)
        try:
            _check_loaded()
        except LoadedBefore:
            pin(before)
            raise
    _check_loaded()


def check() -> None:
    """Check that this process computes at its level; raises as :func:`keep`."""
    keep(_level)


def check_made(url: str, made: str) -> None:
    """Check that a result found at a URL, made at the level of a :func:`label`, is of the level of this process.

    Results from before levels were recorded ("") are taken as they are.

    Raises:
        UserError: it was made at another level: its bytes may not be those that this run would make.
    """
    name = made.partition(" ")[0]
    if name and name != _level:
        raise UserError(
            f"{url}: was made with processor={name}, and this run has processor={_level}, with which the same recipe "
            f"may give other bytes; expected processor={name}, or another output"
        )


def _check_loaded() -> None:
    """Check that the libraries that are loaded use the kernels of this process's level."""
    if _level in PINNED and (found := _others(_level)):
        raise _loaded_before(_level, " and ".join(found))


def _loaded_before(level: str, what: str) -> LoadedBefore:
    return LoadedBefore(
        f"{platform.node()}: processor={level} was expected, and this process has loaded {what}; expected "
        + (
            f"`import gristmill` as the first import, which pins what comes after it ({VARIABLE}={NATIVE} pins "
            "nothing, and results then differ between machines)"
            if level != NATIVE
            else f"{VARIABLE}={NATIVE} in its environment"
        ),
        level,
    )


def _others(level: str) -> list[str]:
    """Return the loaded libraries that do not compute at a level, with what they use."""
    found = []
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        uses = torch.backends.cpu.get_cpu_capability()
        if uses != _TORCH[level]:
            found.append(f"torch ({uses})")
    if "numpy" in sys.modules:
        features = sys.modules["numpy._core._multiarray_umath"].__cpu_features__
        uses = [name for name in _NUMPY[level] if features.get(name)]
        found += [f"numpy ({', '.join(uses)})"] if uses else []
        found += [f"OpenBLAS ({core})" for core in _cores(level)]
    return found


def _cores(level: str) -> list[str]:
    """Return the processors for which a loaded OpenBLAS has chosen kernels of another level."""
    expected = _OPENBLAS.get(level, {variables(level)["OPENBLAS_CORETYPE"]})
    cores = {str(one.get("architecture")) for one in loaded_pools().info() if one["internal_api"] == "openblas"}
    return sorted(cores - expected)


def loaded_pools() -> Any:
    """Return the controller of the loaded libraries that compute with threads.

    It asks each library anew. To find them takes a while (with torch and others 16 ms, which each stage and training
    would wait for), so they are looked for again only if modules were loaded, as no other code loads libraries.
    """
    return _pools(len(sys.modules))


@functools.lru_cache(maxsize=1)
def _pools(_modules: int) -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
