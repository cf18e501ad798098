"""Thrift's compact protocol: the little of it that Parquet's headers and footers use."""

from __future__ import annotations

from typing import Any

_FIXED = {3: 1, 7: 8}  # bytes of the types byte and double


class Thrift:
    """Reads structs; ``IndexError`` where the data end too early, or are none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self) -> dict[int, Any]:
        """Return the fields of a struct by number."""
        found: dict[int, Any] = {}
        field = 0
        while (begin := self._byte()) & 15:
            field = field + (begin >> 4) if begin >> 4 else self._zigzag()
            found[field] = self._value(begin & 15)
        return found

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 12:
            return self.struct()
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._item(head & 15) for _ in range(count)]  # each takes a byte at least, so the data end it
        if kind == 8 or kind in _FIXED:
            return self._taken(self._varint() if kind == 8 else _FIXED[kind])
        raise IndexError(kind)

    def _item(self, kind: int) -> Any:
        return self._byte() if kind in (1, 2) else self._value(kind)

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            if shift > 63:
                raise IndexError(shift)
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _taken(self, count: int) -> bytes:
        self.place += count
        if self.place > len(self.data):
            raise IndexError(self.place)
        return self.data[self.place - count : self.place]
