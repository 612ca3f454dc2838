"""The duration of audio files: of each format, of streams without sizes, and of bytes that lie."""

from __future__ import annotations

import io
import struct
import sys
import time
import wave

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openai_compat.translate.audio_duration import audio_duration

MIB = 1024 * 1024
UNKNOWN = 0xFFFFFFFF


# -- WAV --------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes, size: int | None = None, order: str = "<", pad: bytes = b"\0") -> bytes:
    head = name + struct.pack(order + "I", len(content) if size is None else size)
    return head + content + pad * (len(content) % 2)


def fmt(
    tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, more: bytes = b"", order: str = "<"
) -> bytes:
    frame = channels * bits // 8
    return chunk(
        b"fmt ", struct.pack(order + "HHIIHH", tag, channels, rate, rate * frame, frame, bits) + more, order=order
    )


def wav(*chunks: bytes, size: int | None = None, name: bytes = b"RIFF", order: str = "<") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack(order + "I", len(body) if size is None else size) + body


def of_wave_module(frames: int, channels: int, rate: int, width: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setframerate(rate)
        writer.setsampwidth(width)
        writer.writeframes(bytes(frames * channels * width))
    return file.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_a_wav_of_python_lasts_as_long_as_its_frames(rate: int, channels: int, width: int) -> None:
    assert audio_duration(of_wave_module(12345, channels, rate, width)) == 12345 / rate


EXTENSIBLE = struct.pack("<HHI", 22, 32, 4)
GUID = bytes.fromhex("000000001000800000aa00389b71")

#: 3 s of mono
FORMATS = {
    "integers": (fmt(), 48000),
    "floats": (fmt(3, bits=32), 96000),
    "doubles": (fmt(3, bits=64), 192000),
    "extensible": (fmt(0xFFFE, bits=32, more=EXTENSIBLE + b"\3\0" + GUID), 96000),
    "12 bits": (fmt(bits=12, more=b"\0\0"), 48000),
    "A-law": (fmt(6, bits=8, more=b"\0\0"), 24000),
    "mu-law": (fmt(7, bits=8, more=b"\0\0"), 24000),
    "ADPCM": (chunk(b"fmt ", struct.pack("<HHIIHHH", 2, 1, 8000, 4096, 256, 4, 0)), 12288),
    "no byte rate": (chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 0, 0, 16)), 48000),
    "no bits": (chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 0)), 48000),
}


@pytest.mark.parametrize(("format", "size"), FORMATS.values(), ids=FORMATS)
def test_a_wav_of_any_format(format: bytes, size: int) -> None:
    assert audio_duration(wav(format, chunk(b"data", bytes(size)))) == 3.0


def test_a_compressed_wav_says_how_many_samples_it_has() -> None:
    head = chunk(b"fmt ", struct.pack("<HHIIHHH", 0x55, 1, 8000, 1000, 1, 0, 0))
    fact = chunk(b"fact", struct.pack("<I", 20000))
    assert audio_duration(wav(head, fact, chunk(b"data", bytes(3000)))) == 2.5
    assert audio_duration(wav(head, chunk(b"fact", struct.pack("<I", UNKNOWN)), chunk(b"data", bytes(3000)))) == 3.0


@pytest.mark.parametrize("size", [0, UNKNOWN, 0x7FFFF000, 0xFFFFFFF0], ids=hex)
@pytest.mark.parametrize("file_size", [0, 36, UNKNOWN, 0x7FFFF024], ids=hex)
def test_a_wav_that_was_streamed_lasts_to_the_end_of_the_file(size: int, file_size: int) -> None:
    assert audio_duration(wav(fmt(), chunk(b"data", bytes(48000), size), size=file_size)) == 3.0


def test_a_wav_that_was_streamed_by_ffmpeg() -> None:
    """It has another chunk before the audio."""
    found = wav(
        fmt(),
        chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf61.7.100\0\0"),
        chunk(b"data", bytes(16000), UNKNOWN),
        size=UNKNOWN,
    )
    assert audio_duration(found) == 1.0


def test_a_wav_without_audio_lasts_no_time() -> None:
    assert audio_duration(wav(fmt(), chunk(b"data", b""), chunk(b"LIST", bytes(100)))) == 0.0
    assert audio_duration(wav(fmt(), chunk(b"data", b""))) == 0.0


def test_chunks_after_the_audio_do_not_count() -> None:
    assert audio_duration(wav(fmt(), chunk(b"data", bytes(16000)), chunk(b"LIST", bytes(50000)))) == 1.0


def test_a_wav_that_was_cut_off_lasts_as_long_as_what_is_there() -> None:
    assert audio_duration(wav(fmt(), chunk(b"data", bytes(160000)))[: 44 + 16000]) == 1.0


@pytest.mark.parametrize("pad", [b"\0", b"", b" "], ids=["padded", "not padded", "padded with a blank"])
@pytest.mark.parametrize("size", [1, 33, 101])
def test_chunks_of_odd_size(size: int, pad: bytes) -> None:
    odd = chunk(b"note", bytes(size), pad=pad)
    assert audio_duration(wav(odd, odd, fmt(), odd, chunk(b"data", bytes(16001)))) == 1.0


def test_the_format_may_come_after_the_audio() -> None:
    assert audio_duration(wav(chunk(b"data", bytes(16000)), fmt())) == 1.0


def test_a_wav_in_the_other_byte_order() -> None:
    found = wav(fmt(order=">"), chunk(b"data", bytes(16000), order=">"), name=b"RIFX", order=">")
    assert audio_duration(found) == 1.0


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize(("size", "expected"), [(16000, 1.0), (2**40, 2.0), (0, 2.0)])
def test_a_wav_with_sizes_of_64_bits(name: bytes, size: int, expected: float) -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, size, 0, 0))
    assert audio_duration(wav(sizes, fmt(), chunk(b"data", bytes(32000), UNKNOWN), name=name, size=UNKNOWN)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        wav(fmt()),
        wav(chunk(b"data", bytes(100))),
        wav(fmt()[:20], chunk(b"data", bytes(100))),
        wav(chunk(b"fmt ", bytes(16)), chunk(b"data", bytes(100))),
        wav(fmt(rate=0), chunk(b"data", bytes(100))),
        wav(fmt(channels=0), chunk(b"data", bytes(100))),
        wav(chunk(b"fmt ", bytes(16), UNKNOWN), chunk(b"data", bytes(100))),
        wav(*[chunk(b"note", b"")] * 2000, fmt(), chunk(b"data", bytes(100))),
    ],
)
def test_a_wav_that_does_not_say_how_long_it_is(data: bytes) -> None:
    assert audio_duration(data) is None


def test_a_wav_whose_samples_are_a_lie() -> None:
    head = chunk(b"fmt ", struct.pack("<HHIIHHH", 0x55, 1, 1, 1000, 1, 0, 0))
    assert audio_duration(wav(head, chunk(b"fact", struct.pack("<I", 2**31)), chunk(b"data", bytes(3000)))) is None


# -- the formats of tinytag -------------------------------------------------------------------

#: MPEG 1 layer 3, 128 kbit/s, 44.1 kHz
FRAME = b"\xff\xfb\x90\x00" + bytes(413)
FRAME_SECONDS = 1152 / 44100


def mp3(frames: int) -> bytes:
    return FRAME * frames


def id3(content: bytes) -> bytes:
    size = bytes((len(content) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + content


def flac(samples: int, rate: int = 16000, *more: bytes) -> bytes:
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", rate << 44 | 15 << 36 | samples) + bytes(16)
    last = b"" if more else b"\x80"
    return b"fLaC" + (last or b"\0") + len(info).to_bytes(3, "big") + info + b"".join(more)


def atom(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + name + body


def m4a(scale: int = 1000, duration: int = 2500, *, size: int = 50_000, moov_first: bool = False) -> bytes:
    moov = atom(b"moov", atom(b"mvhd", bytes(12), struct.pack(">II", scale, duration), bytes(80)))
    parts = [atom(b"mdat", bytes(size)), moov]
    return atom(b"ftyp", b"M4A \0\0\0\0M4A ") + b"".join(parts[:: -1 if moov_first else 1])


def page(granule: int, content: bytes, *, kind: int = 0, serial: int = 7) -> bytes:
    sizes = [255] * (len(content) // 255) + [len(content) % 255]
    head = b"OggS\0" + bytes([kind]) + struct.pack("<qIII", granule, serial, 0, 0)
    return head + bytes([len(sizes), *sizes]) + content


def opus(seconds: int, page_size: int = 4000) -> bytes:
    pages = [page(0, b"OpusHead\1\1" + struct.pack("<HIHB", 312, 48000, 0, 0), kind=2), page(0, b"OpusTags" + bytes(8))]
    for second in range(1, seconds + 1):
        kind = 4 if second == seconds else 0
        pages.append(page(second * 48000 + 312, bytes(page_size), kind=kind))
    return b"".join(pages)


@pytest.mark.parametrize("tag", [b"", id3(b""), id3(bytes(1000)), id3(b"\xff\xfb" * 700_000)], ids=len)
def test_an_mp3_of_one_bit_rate(tag: bytes) -> None:
    assert audio_duration(tag + mp3(1000)) == pytest.approx(1000 * FRAME_SECONDS, abs=0.1)


@pytest.mark.parametrize("end", [b"", b"TAG" + bytes(125)], ids=["plain", "tag at the end"])
def test_an_mp3_longer_than_what_is_read_of_it(end: bytes) -> None:
    data = mp3(40_000) + end
    assert len(data) > 15 * MIB
    assert audio_duration(data) == pytest.approx(40_000 * FRAME_SECONDS, abs=0.1)


def test_an_mp3_that_says_how_many_frames_it_has() -> None:
    xing = (FRAME[:36] + b"Xing" + struct.pack(">III", 3, 500, 200_000) + FRAME)[: len(FRAME)]
    assert audio_duration(xing + mp3(500)) == 500 * FRAME_SECONDS


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (flac(40_000), 2.5),
        (id3(bytes(100)) + flac(40_000), 2.5),
        (flac(40_000, 16000, b"\x86\0\0\x20" + struct.pack(">II", 3, 0) + bytes(24)), 2.5),
        (m4a(), 2.5),
        (m4a(moov_first=True), 2.5),
        (m4a(44100, 44100 * 90), 90.0),
        (m4a(size=5 * MIB), 2.5),
        (opus(3), 3.0),
        (opus(600), 600.0),
        (opus(600, 60_000), 600.0),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_a_file_of_another_format(data: bytes, expected: float) -> None:
    assert audio_duration(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01webm" + bytes(100),  # WebM
        b"\xff\xf1\x50\x80" + bytes(1000),  # AAC
        b"FORM\0\0\0\0AIFFCOMM" + bytes(100),
        b"#!AMR\n" + bytes(100),
        b"caff\0\1\0\0desc" + bytes(100),
        b"Hello, this is text.",
        flac(0),  # unknown
        m4a(duration=0),  # in fragments
        m4a(scale=0),
        m4a(duration=UNKNOWN),
        flac(2**36 - 1),
        opus(0),
        id3(bytes(100)),
        b"fLaC",
        b"OggS",
        b"\0\0\0\x10ftyp",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_duration_that_is_unknown(data: bytes) -> None:
    assert audio_duration(data) is None


def test_an_ogg_that_was_cut_off_lasts_as_long_as_its_whole_pages() -> None:
    assert 500 <= (audio_duration(opus(600)[:-5000]) or 0) < 600


@pytest.mark.parametrize("data", [mp3(1000), flac(40_000), m4a(), opus(3)], ids=["mp3", "flac", "m4a", "ogg"])
def test_without_tinytag_only_wav_is_known(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audio_duration(data) is not None
    monkeypatch.setitem(sys.modules, "tinytag", None)
    assert audio_duration(data) is None
    assert audio_duration(of_wave_module(8000, 1, 8000, 2)) == 1.0


# -- hostile files ----------------------------------------------------------------------------

FILES = {
    "wav": wav(chunk(b"note", b"odd"), fmt(more=b"\0\0"), chunk(b"fact", bytes(4)), chunk(b"data", bytes(300))),
    "rf64": wav(chunk(b"ds64", bytes(28)), fmt(), chunk(b"data", bytes(300), UNKNOWN), name=b"RF64", size=UNKNOWN),
    "mp3": id3(bytes(20)) + mp3(6),
    "flac": flac(40_000, 16000, b"\x04\0\0\x08" + bytes(8), b"\x86\0\0\x20" + struct.pack(">II", 3, 0) + bytes(24)),
    "m4a": m4a(size=100),
    "ogg": opus(2, 300),
}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, removed or put in."""
    data = bytearray(draw(st.sampled_from(list(FILES.values()))))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"]))
        data[at : at + draw(st.integers(0, 8))] = new
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@pytest.mark.slow
@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    damaged()
    | st.binary(max_size=400)
    | st.builds(bytes.__add__, st.sampled_from([b"OggS", b"fLaC", b"ID3"]), st.binary())
)
@example(b"OggS" + bytes(22) + b"\xff")
def test_no_bytes_raise(data: bytes) -> None:
    found = audio_duration(data)
    assert found is None or 0 <= found < float("inf")


#: what makes a reader take many steps, in one block each
HOSTILE = {
    "mp3 of sync bytes": (b"", b"\xff" * 32),
    "mp3 of sync bytes after a tag": (id3(b""), b"\xff" * 32),
    "mp3 of zeros": (b"\xff\xfb", bytes(32)),
    "m4a of empty atoms": (b"\0\0\0\x08ftyp", b"\0\0\0\x08free"),
    "m4a of empty atoms in a movie": (b"\0\0\0\x08ftyp\xff\0\0\0moov", b"\0\0\0\x08free"),
    "m4a of headers": (b"\0\0\0\x08ftyp\xff\0\0\0moov", b"\0\0\0\x28mvhd" + bytes(32)),
    "flac of empty blocks": (b"fLaC", b"\1\0\0\0"),
    "flac of comments": (b"fLaC\4\0\0\0\0\0\0\0\xff\xff\xff\xff", bytes(32)),
    "ogg of empty pages": (b"", page(0, b"")),
    "ogg of empty packets": (b"", b"OggS\0\2" + bytes(20) + b"\xff" + bytes(255)),
    "ogg of one packet": (b"", b"OggS\0\2" + bytes(20) + b"\xff" + b"\xff" * 255 + bytes(65025)),
    "wav of empty chunks": (b"RIFF\0\0\0\0WAVE", b"note\0\0\0\0"),
    "wav of formats": (b"RIFF\0\0\0\0WAVE", b"fmt \0\0\0\0"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "block"), HOSTILE.values(), ids=HOSTILE)
def test_time_does_not_grow_with_a_hostile_file(head: bytes, block: bytes) -> None:
    """An MP3 of 30 MB of sync bytes takes tinytag itself 10 s; all of these take less than 0.2 s."""
    data = head + block * (30 * MIB // len(block))
    start = time.process_time()
    audio_duration(data)
    assert time.process_time() - start < 2.0
