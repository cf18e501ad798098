"""eSpeak NG, a formant synthesiser with accents and voice variants: the only code here that loads it.

It is under the GPL, version 3 or later. The package ``espeakng-loader`` that brings it is therefore in an extra of its
own, ``pip install '.[espeak]'``, and nothing else needs it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gristmill.actors.speech.voices import Voice
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.interrupts import held


class Espeak:
    """eSpeak NG (https://github.com/espeak-ng/espeak-ng) through ctypes; 16-bit sound at 22,050 Hz.

    The library keeps state from one utterance to the next (phase, filters, echo), so the sound of a text depends on the
    previous one. Only a freshly loaded library is in a known state; loading takes 4 ms.
    """

    rate = 22050
    _lock = threading.Lock()  # the library is global to the process: one utterance at a time
    _callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

    @staticmethod
    def check() -> None:
        """Check that this engine can be used here.

        Raises:
            UserError: the package is not installed, or this is not Linux.
        """
        if find_spec("espeakng_loader") is None:
            raise UserError(
                "espeak voices need eSpeak NG, which is not installed: run `pip install '.[espeak]'` (it is "
                "under the GPL), or give other voices (corpus.voices=neural)"
            )
        if not hasattr(os, "memfd_create"):
            raise UserError("espeak voices are available on Linux only: give other voices (corpus.voices=neural)")

    def __init__(self) -> None:
        self.check()
        import espeakng_loader

        self._data = espeakng_loader.get_data_path().encode()
        self._variants = {v.name for v in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir()}
        # A private copy: if the library were in use elsewhere in the process, closing it would not reset its state.
        with open(espeakng_loader.get_library_path(), "rb") as source:
            self._copy = os.memfd_create("espeak-ng")
            with open(self._copy, "wb", closefd=False) as copy:
                copy.write(source.read())
        self._path = f"/proc/self/fd/{self._copy}"
        self._libc = ctypes.CDLL(None)

    def speak(self, text: str, voice: Voice, pace: float, lift: float, spread: float, seed: int) -> np.ndarray:
        """Return float samples. ``pace`` 1 is 140 words a minute; ``lift`` and ``spread`` are -1 to 1."""
        language, plus, variant = voice.name.partition("+")
        # The library itself ignores unknown variants, and speaks English for unknown languages.
        if not language.startswith("en-") or (plus and variant not in self._variants):
            raise RejectRecord(f"unknown voice espeak:{voice.name}")
        pitch = (50.0 if voice.pitch is None else voice.pitch) + 10.0 * lift
        # rate, volume (low enough that no voice clips), pitch, range, no gap between words
        settings = {1: 140 * pace, 2: 55, 3: pitch, 4: 50 + 25 * spread, 7: 0}
        with self._lock, held():
            return self._speak(text.encode(), voice.name.encode(), settings, seed)

    def _speak(self, text: bytes, name: bytes, settings: dict[int, float], seed: int) -> np.ndarray:
        import _ctypes

        chunks: list[bytes] = []

        def take(samples: int | None, count: int, _events: int | None) -> int:
            if samples and count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        callback = self._callback_type(take)
        library = ctypes.CDLL(self._path)
        try:
            # 2: no sound card, the call returns when synthesis is complete; 0x8000: never exit the process
            if library.espeak_Initialize(2, 0, self._data, 0x8000) != self.rate:
                raise RuntimeError("eSpeak NG did not start")
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(name):
                raise RejectRecord(f"unknown voice espeak:{name.decode()}")
            for key, value in settings.items():
                library.espeak_SetParameter(key, round(value), 0)
            # Some voices' noise comes from the library's generator, some from the C library's.
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            self._libc.srand(seed)
            if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None):
                raise RuntimeError("eSpeak NG did not speak")
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)
        return np.frombuffer(b"".join(chunks), np.int16).astype(np.float32) / 32768.0
