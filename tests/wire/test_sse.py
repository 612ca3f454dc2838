"""Frames of server-sent events."""

from openai_compat.wire import sse


def test_a_frame_is_one_data_line_and_a_blank_one() -> None:
    assert sse.frame(b'{"a":1}') == b'data: {"a":1}\n\n'


def test_done_is_openai_s() -> None:
    assert sse.DONE == b"data: [DONE]\n\n"
