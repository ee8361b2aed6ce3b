"""Content that is packed as kernels and their modules are: by xz, gzip or zstd."""

from __future__ import annotations

import ctypes
import lzma
import zlib

_DICTIONARY = 128 << 20
"""Bytes of memory for what unpacks xz; ``xz -9`` needs 65 MiB."""
_XZ, _GZIP, _ZSTD = b"\xfd7zXZ\0", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def unpacked(packed: bytes, limit: int, *, size: int | None = None) -> bytes | None:
    """Return the content of ``packed``, which may be followed by other bytes; None when it is packed in a rare way.

    ``limit`` is the most that it may have in bytes, ``size`` what it has, for zstd where the frame does not say it.
    Raises :class:`ValueError`, :class:`lzma.LZMAError`, :class:`zlib.error` or :class:`EOFError` when it is damaged or
    larger.
    """
    if packed.startswith(_XZ):
        xz = lzma.LZMADecompressor(memlimit=_DICTIONARY)
        return _whole(xz.decompress(packed, limit), xz.eof)
    if packed.startswith(_GZIP):
        gzip = zlib.decompressobj(wbits=31)
        return _whole(gzip.decompress(packed, limit), gzip.eof)
    return _zstd(packed, limit, size) if packed.startswith(_ZSTD) else None


def _whole(content: bytes, ended: bool) -> bytes:
    if not ended:
        raise EOFError("it ends too early, or is too large")
    return content


def _zstd(packed: bytes, limit: int, size: int | None) -> bytes | None:
    # Python has no zstd before 3.14; dpkg needs the library, so it is there on any Debian.
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    frame = library.ZSTD_findFrameCompressedSize
    frame.restype, frame.argtypes = ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t]
    stated = library.ZSTD_getFrameContentSize
    stated.restype, stated.argtypes = ctypes.c_ulonglong, [ctypes.c_char_p, ctypes.c_size_t]
    decompress = library.ZSTD_decompress
    decompress.restype = ctypes.c_size_t
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    length = frame(packed, len(packed))
    if library.ZSTD_isError(ctypes.c_size_t(length)):
        raise EOFError("its zstd frame is cut off or damaged")
    known = stated(packed, len(packed))
    if known >= _NOT_STATED:
        known = size or 0
    if known > limit:
        raise ValueError(f"unpacked it would have {known} bytes")
    content = ctypes.create_string_buffer(known)
    if decompress(content, known, packed, length) != known:
        raise ValueError("its zstd frame is damaged")
    return content.raw


_NOT_STATED = (1 << 64) - 2
"""ZSTD_CONTENTSIZE_ERROR in zstd.h; above it is ZSTD_CONTENTSIZE_UNKNOWN."""
