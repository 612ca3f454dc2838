"""The duration of an audio file, from its bytes: a pure function that never raises, and that is linear and bounded.

WAV is read here. MP3, M4A, FLAC and Ogg are read by tinytag, an extra; it gets a file that limits what it may read,
since some of its loops take one step a byte. No other format is known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

#: chunks of a WAV file that are visited: files have less than 20
_MAX_CHUNKS = 1000
#: what tinytag may read of a file: at most 1 MiB, mostly 4 bytes at a time. So an MP3 is judged by its beginning, where
#: 30 s of it suffice, or a few frames of one bit rate
_MAX_READS, _MAX_READ_BYTES = 128 * 1024, 1024 * 1024


def audio_duration(data: bytes) -> float | None:
    """Return the duration in seconds; None if it is unknown.

    It is unknown for a format that is not supported, for a damaged file, for one that does not say how long it is, and
    for every format but WAV if tinytag is not installed.
    """
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return _wav_duration(data)
    if data.startswith(b"OggS"):
        return _tinytag_duration(_ogg_ends(data), len(data))
    if data.startswith((b"ID3", b"fLaC")) or data[4:8] == b"ftyp" or _is_mpeg_frame(data):
        return _tinytag_duration(data, len(data))
    return None


def _is_mpeg_frame(data: bytes) -> bool:
    """Return whether MPEG audio begins here; layer 0 is AAC without a container, which has no duration."""
    return len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0


# -- WAV --------------------------------------------------------------------------------------

#: format tags of samples of one size: integers, floats, A-law, mu-law
_SAMPLES = (0x0001, 0x0003, 0x0006, 0x0007)
#: the tag of a format whose real tag comes later
_EXTENSIBLE = 0xFFFE
#: a size that was not known when the head was written, or that another chunk has
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass
class _Wave:
    """What the chunks of a WAV file say."""

    #: the content of ``fmt``
    format: bytes = b""
    #: number of samples of each channel, of ``fact``
    samples: int = 0
    #: bytes of audio, of ``ds64``
    long_size: int = 0
    #: bytes of audio that are there
    size: int | None = None


def _wav_duration(data: bytes) -> float | None:
    order: Literal["little", "big"] = "big" if data.startswith(b"RIFX") else "little"
    wave = _read_wave(data, order)
    if len(wave.format) < 16 or wave.size is None:
        return None
    prefix = ">" if order == "big" else "<"
    tag, channels, rate, byte_rate, frame, bits = struct.unpack_from(prefix + "HHIIHH", wave.format)
    if tag == _EXTENSIBLE and len(wave.format) >= 26:
        tag = int.from_bytes(wave.format[24:26], order)
    if tag in _SAMPLES:
        frame = channels * ((bits + 7) // 8) or frame
        return wave.size // frame / rate if frame and rate else None
    if 0 < wave.samples < _UNKNOWN_SIZE and rate:
        return _plausible(wave.samples / rate, len(data))
    return wave.size / byte_rate if byte_rate else None


def _read_wave(data: bytes, order: Literal["little", "big"]) -> _Wave:
    """Visit the chunks of a WAV file, up to the audio and the format."""
    wave, position = _Wave(), 12
    file_end = 8 + int.from_bytes(data[4:8], order)
    for _ in range(_MAX_CHUNKS):
        start = position + 8
        if start > len(data) or (wave.format and wave.size is not None):
            break
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : start], order)
        if name == b"fmt ":
            wave.format = data[start : start + min(size, 40)]
        elif name == b"fact":
            wave.samples = int.from_bytes(data[start : start + 4], order)
        elif name == b"ds64":
            wave.long_size = int.from_bytes(data[start + 8 : start + 16], order)
        elif name == b"data":
            size = wave.size = _data_size(size, wave.long_size, len(data) - start, file_end - start)
        position = start + size + _padding(data, start + size, size)
    return wave


def _data_size(size: int, long_size: int, rest: int, declared_rest: int) -> int:
    """Return the number of bytes of audio that are there.

    :param size: as the chunk says.
    :param long_size: as ``ds64`` says, or 0.
    :param rest: bytes from here to the end of the file.
    :param declared_rest: the same, as the head of the file says.
    """
    if size == _UNKNOWN_SIZE:
        size = long_size or rest
    elif size == 0 and (declared_rest <= 0 or declared_rest > rest):
        # A program that streams cannot go back to write the sizes: it leaves none, or the greatest.
        return rest
    return min(size, rest)


def _padding(data: bytes, end: int, size: int) -> int:
    """Return the length of the padding after a chunk of odd size; some programs leave it out."""
    name = data[end : end + 4]
    is_name = len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name) and not name.startswith(b" ")
    return 0 if size % 2 == 0 or is_name else 1


# -- other formats ----------------------------------------------------------------------------


class _LimitedFile(BytesIO):
    """A file that fails when too much of it is read. It does not copy the bytes that it is made of."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._read_bytes = _MAX_READS, _MAX_READ_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads -= 1
        self._read_bytes -= size if size is not None and size >= 0 else _MAX_READ_BYTES
        if self._reads < 0 or self._read_bytes < 0:
            raise OSError("too much of this file was read")
        return super().read(size)


def _tinytag_duration(data: bytes, size: int) -> float | None:
    """Return the duration that tinytag finds.

    :param size: bytes of the whole file.
    """
    try:
        from tinytag import TinyTag
    except ModuleNotFoundError:
        return None
    try:
        seconds = TinyTag.get(file_obj=_LimitedFile(data), tags=False).duration
    except Exception:  # the bytes are a stranger's: whatever fails in there, the duration is unknown
        return None
    # 0 stands for an unknown length in FLAC and MP4.
    return _plausible(seconds, size) if seconds else None


def _plausible(seconds: float, size: int) -> float | None:
    """Return a duration that a head claims; None if the file cannot have it.

    Even silence takes more than a byte a second, in every format.
    """
    return seconds if 0 < seconds <= size else None


#: bytes of the largest page of an Ogg file, and pages at its beginning that may introduce a stream
_OGG_PAGE, _OGG_HEAD_PAGES = 27 + 255 + 255 * 255, 4


def _ogg_ends(data: bytes) -> bytes:
    """Return the first and the last pages of an Ogg file: the first have the sample rate, the last have the length."""
    head = 0
    for _ in range(_OGG_HEAD_PAGES):
        segments = data[head + 27 : head + 27 + data[head + 26]] if head + 26 < len(data) else b""
        head += 27 + len(segments) + sum(segments)
    tail = data.find(b"OggS", max(head, len(data) - 2 * _OGG_PAGE))
    return data if tail <= head else data[:head] + data[tail:]
