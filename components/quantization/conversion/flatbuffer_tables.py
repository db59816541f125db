"""Tables and vectors of a flatbuffer from anywhere, read within bounds: no broken file costs more than its size.

The format: https://flatbuffers.dev/internals/ . Every position is checked before it is read. Vectors and tables may be
shared by a broken file so that reading it would never end, so what is read is counted, too.
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# A table takes 4 bytes, its place in a vector 4 more; a whole file is read at most this often.
_TIMES_READ = 4
_SMALLEST_TABLE = 4
_SMALLEST_BUDGET = 1024


class BrokenError(ValueError):
    """A position, a length or an index that leads out of the file."""


class Buffer:
    """The bytes of a flatbuffer, and how much of them may still be read."""

    def __init__(self, content: bytes) -> None:
        """Keeps a view of the content, a file."""
        self.content = memoryview(content).cast("B")
        self._tables = max(len(content) // _SMALLEST_TABLE, _SMALLEST_BUDGET)
        self._bytes = max(_TIMES_READ * len(content), _SMALLEST_BUDGET)

    def root(self) -> "Table":
        """Returns the root table."""
        return self.table(self.number("<I", 0))

    def number(self, kind: str, position: int) -> Any:
        """Returns a number at a position.

        Args:
          kind: Its format, one of `struct`.
          position: Where it starts, in bytes.
        """
        self.require(position, struct.calcsize(kind))
        return struct.unpack_from(kind, self.content, position)[0]

    def require(self, position: int, size: int) -> None:
        """Raises BrokenError if so many bytes are not there."""
        if position < 0 or size < 0 or position + size > len(self.content):
            raise BrokenError(f"got {size} bytes at {position}, expected them within {len(self.content)} bytes")

    def table(self, position: int) -> "Table":
        """Returns the table at a position, and counts it."""
        self._tables -= 1
        if self._tables < 0:
            raise BrokenError("got more tables than the file has room for, expected each once")
        return Table(self, position)

    def copied(self, size: int) -> None:
        """Counts bytes that are copied out of the file."""
        self._bytes -= size
        if self._bytes < 0:
            raise BrokenError("got more names and numbers than the file has room for, expected each once")


class Table:
    """One table: its fields are found by their slots, their order in the schema."""

    def __init__(self, buffer: Buffer, position: int) -> None:
        """Checks the table of a file that starts at a position, in bytes."""
        self._buffer, self._position = buffer, position
        self._vtable = position - buffer.number("<i", position)
        self._size = buffer.number("<H", self._vtable)
        if self._size < _SMALLEST_TABLE:
            raise BrokenError(f"got a table of {self._size} bytes of fields at {position}, expected 4 at least")
        buffer.require(self._vtable, self._size)
        buffer.require(position, buffer.number("<H", self._vtable + 2))

    def number(self, slot: int, kind: str, default: float = 0) -> Any:
        """Returns a number, the default if it is not stored."""
        position = self._field(slot)
        return default if position is None else self._buffer.number(kind, position)

    def text(self, slot: int) -> str:
        """Returns a string, empty if there is none."""
        content = self.raw(slot) or b""
        self._buffer.copied(len(content))
        return str(bytes(content), errors="replace")

    def raw(self, slot: int) -> memoryview | None:
        """Returns a string or a vector of bytes as it is; None if there is none."""
        start, count = self._vector(slot, 1)
        return None if start is None else self._buffer.content[start : start + count]

    def numbers(self, slot: int, dtype: str) -> npt.NDArray[Any]:
        """Returns a vector of numbers, empty if there is none."""
        size = np.dtype(dtype).itemsize
        start, count = self._vector(slot, size)
        if start is None or not count:
            return np.zeros(0, dtype)
        self._buffer.copied(count * size)
        return np.frombuffer(self._buffer.content, dtype, count, start)

    def table(self, slot: int) -> "Table | None":
        """Returns a table, None if there is none."""
        position = self._field(slot)
        return None if position is None else self._buffer.table(position + self._buffer.number("<I", position))

    def tables(self, slot: int) -> Iterator["Table"]:
        """Yields the tables of a vector."""
        start, count = self._vector(slot, 4)
        for index in range(count):
            position = (start or 0) + 4 * index
            yield self._buffer.table(position + self._buffer.number("<I", position))

    def _field(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        offset = self._buffer.number("<H", self._vtable + entry) if entry + 2 <= self._size else 0
        return self._position + offset if offset else None

    def _vector(self, slot: int, size: int) -> tuple[int | None, int]:
        position = self._field(slot)
        if position is None:
            return None, 0
        start = position + self._buffer.number("<I", position)
        count = self._buffer.number("<I", start)
        self._buffer.require(start + 4, count * size)
        return start + 4, count
