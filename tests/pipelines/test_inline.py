"""What callers and users give line by line: texts in Python, files and pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gristmill.pipelines.inline import read_lines, texts_of


def test_texts_alone_and_in_iterables() -> None:
    assert list(texts_of(["on"])) == ["on"]
    assert list(texts_of(["on", ["off", None], (text for text in "ab"), None])) == ["on", "off", None, "a", "b", None]
    for wrong in (b"on", 5, [["on"]], [5]):
        with pytest.raises(TypeError, match="is given; expected texts"):
            list(texts_of([wrong]))


def test_lines_of_a_pipe(tmp_path: Path) -> None:
    pipe = str(tmp_path / "texts")
    os.mkfifo(pipe)
    writer = threading.Thread(target=Path(pipe).write_text, args=("on\n\noff",))
    writer.start()
    lines = list(read_lines([pipe]))
    assert [(line.where, line.text) for line in lines] == [(f"{pipe}:1", "on"), (f"{pipe}:2", ""), (f"{pipe}:3", "off")]
    writer.join()
