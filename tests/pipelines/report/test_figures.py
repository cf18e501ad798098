import struct
import zlib

import numpy as np
import pytest

from gristmill.pipelines.report import figures


def test_png_decodes_to_its_levels():
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = figures.png(levels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (4, 3)
    assert len(chunks[b"PLTE"]) == 768
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 5)
    np.testing.assert_array_equal(rows[:, 1:], levels)
    assert not rows[:, 0].any()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.037), (0, 812.0), (0.2, 0.2), (-3, 7)])
def test_ticks_are_round_and_cover(low, high):
    marks = figures.ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8
