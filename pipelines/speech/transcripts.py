"""How transcripts are written: plain text, JSON lines (a NeMo manifest), CTM and SubRip subtitles."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from gristmill.models.speech.words import Word
from gristmill.pipelines.inline import STDIN
from gristmill.pipelines.speech.transcribe import QUIET, Utterance
from gristmill.shards import store
from gristmill.shards.safe_text import escaped

Form = Literal["text", "jsonl", "ctm", "srt"]
FORMS: tuple[str, ...] = get_args(Form)
SUFFIXES = {"text": ".txt", "jsonl": ".jsonl", "ctm": ".ctm", "srt": ".srt"}
_CUE_S, _CUE_LETTERS, _LINE_LETTERS = 7.0, 84, 42  # of a subtitle: two lines that can be read in time


class Writer:
    """Gives the lines of utterances in a form; ``named``: lines of text begin with the recording and a tab.

    JSON lines name the recording by its path from ``folder``, where they are written, or by its absolute path. Of
    recordings that cannot be read only they have a line, with ``error``.
    """

    def __init__(self, form: Form, *, named: bool = False, folder: str | None = None) -> None:
        self.form, self.named, self.folder, self._cues = form, named, folder, 0

    def lines(self, one: Utterance) -> Iterator[str]:
        """Yield the lines of an utterance."""
        if self.form == "jsonl":
            yield _json(one, entry(one.audio, self.folder))
        elif one.problem is not None and one.problem not in QUIET:
            return
        elif self.form == "text":
            text = escaped(one.text)
            yield f"{escaped(one.audio)}\t{text}" if self.named else text
        elif self.form == "ctm":
            recording = "_".join(escaped(one.audio).split())
            for word in one.words:
                start, length = one.start + word.start, word.end - word.start
                spelled = "_".join(escaped(word.word).split())
                yield f"{recording} 1 {start:.2f} {length:.2f} {spelled} {word.confidence:.3f}"
        else:
            for cue in _cues(one.words):
                self._cues += 1
                start, end = one.start + cue[0].start, one.start + cue[-1].end
                text = "\n".join(_wrapped([escaped(word.word) for word in cue]))
                yield f"{self._cues}\n{_clock(start)} --> {_clock(end)}\n{text}\n"


def entry(audio: str, folder: str | None = None) -> str:
    """Return how a manifest in a folder names a recording, so that it is found from there.

    It is a path from the folder if both lie on this machine, else absolute; what is no file keeps its name.

    Example:
        >>> entry("/data/wav/a.wav", "/data/lists"), entry("/data/wav/a.wav"), entry("s3://raw/a.wav", "/data")
        ('../wav/a.wav', '/data/wav/a.wav', 's3://raw/a.wav')
    """
    if "://" in audio or not audio or audio == STDIN:
        return audio
    place = store.absolute(audio)
    return place if folder is None or "://" in folder else os.path.relpath(place, store.absolute(folder))


def _json(one: Utterance, audio: str) -> str:
    row: dict[str, object] = {"audio_filepath": audio, "offset": round(one.start, 3)}
    row |= {"duration": round(one.duration, 3), "text": one.text}
    row["confidence"] = None if one.confidence is None else round(one.confidence, 4)
    row["words"] = [
        {
            "word": word.word,
            "start": round(one.start + word.start, 3),
            "end": round(one.start + word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in one.words
    ]
    if one.problem is not None:
        silent = one.problem in QUIET
        row = {
            "audio_filepath": audio,
            "text": "" if silent else None,
            "reason" if silent else "error": one.problem,
        }
    return escaped(json.dumps(row, ensure_ascii=False))


def _cues(words: Sequence[Word]) -> Iterator[list[Word]]:
    cue: list[Word] = []
    for word in words:
        letters = sum(len(one.word) + 1 for one in cue) + len(word.word)
        if cue and (word.end - cue[0].start > _CUE_S or letters > _CUE_LETTERS):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _wrapped(words: Sequence[str]) -> list[str]:
    """Return one line, or two of about the same length."""
    text = " ".join(words)
    if len(text) <= _LINE_LETTERS or len(words) < 2:
        return [text]
    ends = [len(" ".join(words[:count])) for count in range(1, len(words))]
    cut = min(ends, key=lambda end: abs(2 * end - len(text)))
    return [text[:cut], text[cut + 1 :]]


def _clock(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02d}:{whole // 60000 % 60:02d}:{whole // 1000 % 60:02d},{whole % 1000:03d}"
