"""Wav files written to a pipe, whose header could not be filled in afterwards.

Some writers leave the size of the samples at 0, where libsndfile believes that there are none. Others claim the most
that there can be, which libsndfile holds against the file's size, but for RF64.
"""

import io
import os
import struct

CHUNKS = 1000  # looked at, at most
OPEN = b"\xff" * 4  # a size that no file has, in either order of bytes
ORDERS = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">"}

Patches = list[tuple[int, bytes]]  # (place in the file, what is to be read there)


def open_header(file: io.BufferedIOBase) -> Patches:
    """What is to be read in place of a wav's header that leaves the size of its samples open; nothing for other files.

    The file is left at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(36)
    kind, form = head[:4], head[8:12]
    patches: Patches = []
    if kind in ORDERS and form == b"WAVE":
        start, length = _samples(file, size, ORDERS[kind])
        if kind == b"RF64" and len(head) == 36:  # whose 64-bit sizes stand in its first chunk, ds64
            length = struct.unpack_from("<Q", head, 28)[0]
            if length > size:
                length = 0
        if 0 < start < size and length == 0 and not _whole(file, start, size, ORDERS[kind]):
            patches = [(start - 4, OPEN)]
            if kind == b"RF64":
                patches.append((0, b"RIFF"))
    file.seek(0)
    return patches


def _samples(file: io.BufferedIOBase, size: int, order: str) -> tuple[int, int]:
    """(the place of the first sample in a wav file, 0 if it has none; the number of bytes its header gives them)"""
    place = 12
    for _ in range(CHUNKS):
        name, length = _chunk(file, place, order)
        if name == b"data":
            return place + 8, length
        place += 8 + length + length % 2
        if not name or place >= size:
            break
    return 0, 0


def _whole(file: io.BufferedIOBase, place: int, size: int, order: str) -> bool:
    """Whether only well-formed chunks follow up to the file's end: then there are no samples indeed."""
    for _ in range(CHUNKS):
        name, length = _chunk(file, place, order)
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        place += 8 + length + length % 2
        if place >= size:
            return place <= size + length % 2
    return False


def _chunk(file: io.BufferedIOBase, place: int, order: str) -> tuple[bytes, int]:
    """A chunk's name and size; no name where the file ends before both."""
    file.seek(place)
    head = file.read(8)
    if len(head) < 8:
        return b"", 0
    return head[:4], struct.unpack(f"{order}I", head[4:])[0]
