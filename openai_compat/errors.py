"""A failure as the client will see it.

One class for every failure: whoever finds it says what the client gets (status, text, parameter,
code), and only the edge turns it into bytes. No text here may hold a host, a URL, a key or a prompt.
"""

from __future__ import annotations

from typing import Any

#: the longest native error text that a client is shown, in characters (F33)
MAX_TEXT = 500


class APIError(Exception):
    """An error in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

    :param status: HTTP status, 4xx or 5xx.
    :param param: path of the request field at fault, such as ``messages[0].content``.
    :param code: a short name for programs; OpenAI's where it has one.
    :param type: OpenAI's class of the error; follows from the status if not given.
    :param headers: further response headers.
    :param retry: ``False`` tells OpenAI's clients not to repeat the request (``x-should-retry``).

    Source: ollama ``openai/openai.go`` ``NewError``. Differs: types and codes are OpenAI's.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type or _type(status)
        self.headers = headers
        self.retry = retry

    def body(self) -> dict[str, Any]:
        """The error as JSON values; all four keys are always there."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> APIError:
    """A mistake of the client: 400."""
    return APIError(400, message, param=param, code=code)


def missing(param: str) -> APIError:
    """A field that must be there and is not: 400."""
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def too_long(param: str, limit: int, length: int) -> APIError:
    """A list with too many items: 400."""
    text = f"Expected an array with maximum length {limit}, but got an array with length {length} instead."
    return invalid(f"Invalid '{param}': array too long. {text}", param, "array_above_max_length")


def not_supported(param: str, text: str) -> APIError:
    """A parameter, or a value of it, that this version does not offer: 400."""
    return APIError(400, f"Unsupported parameter: '{param}'. {text}", param=param, code="unsupported_parameter")


def invalid_output(message: str, code: str) -> APIError:
    """An answer that is not what it had to be: 502, and no reason to pay for it once more."""
    return APIError(502, message, code=code, retry=False)


def answer_too_long() -> APIError:
    """A native answer that is larger than what may be collected: 502."""
    return invalid_output("The backend's answer is too long.", "upstream_error")


def bad_gateway(message: str = "The backend sent an answer that could not be understood.") -> APIError:
    """The native side failed in a way that repeating may mend: 502."""
    return APIError(502, message, code="upstream_error")
