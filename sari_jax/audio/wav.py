"""Wav files written to a pipe: the writer could not fill in the header's sizes afterwards.

Some writers leave the size of the samples at 0, and libsndfile takes the file for empty. Others write the largest
possible size, which libsndfile limits to the file's size, except in RF64 files.
"""

import io
import os
import struct

# The largest number of chunks that are read.
CHUNKS = 1000
# A size that no file has, in either byte order.
UNBOUNDED = b"\xff" * 4
BYTE_ORDERS = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">"}

# (offset in the file, the bytes to read there instead of the file's own)
Patches = list[tuple[int, bytes]]


def patch_open_header(file: io.BufferedIOBase) -> Patches:
    """Returns patches for a wav header that does not give the size of its samples; no patches for other files.

    The file is left at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(36)
    kind, form = head[:4], head[8:12]
    patches: Patches = []
    if kind in BYTE_ORDERS and form == b"WAVE":
        start, length = _samples(file, size, BYTE_ORDERS[kind])
        # The first chunk of an RF64 file, ds64, holds the 64-bit sizes.
        if kind == b"RF64" and len(head) == 36:
            length = struct.unpack_from("<Q", head, 28)[0]
            if length > size:
                length = 0
        if (
            0 < start < size
            and length == 0
            and not _only_chunks(file, start, size, BYTE_ORDERS[kind])
        ):
            patches = [(start - 4, UNBOUNDED)]
            if kind == b"RF64":
                patches.append((0, b"RIFF"))
    file.seek(0)
    return patches


def _samples(file: io.BufferedIOBase, size: int, order: str) -> tuple[int, int]:
    """Returns (offset of the first sample in a wav file, 0 if it has none; number of bytes that its header claims)."""
    offset = 12
    for _ in range(CHUNKS):
        name, length = _chunk(file, offset, order)
        if name == b"data":
            return offset + 8, length
        offset += 8 + length + length % 2
        if not name or offset >= size:
            break
    return 0, 0


def _only_chunks(file: io.BufferedIOBase, offset: int, size: int, order: str) -> bool:
    """Whether only well-formed chunks follow up to the file's end: then the file really has no samples."""
    for _ in range(CHUNKS):
        name, length = _chunk(file, offset, order)
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        offset += 8 + length + length % 2
        if offset >= size:
            return offset <= size + length % 2
    return False


def _chunk(file: io.BufferedIOBase, offset: int, order: str) -> tuple[bytes, int]:
    """A chunk's name and size; no name if the file ends before both."""
    file.seek(offset)
    head = file.read(8)
    if len(head) < 8:
        return b"", 0
    return head[:4], struct.unpack(f"{order}I", head[4:])[0]
