"""The one exception for a failure that the client sees, and functions that make the usual ones.

The code that detects a failure chooses the status, message, parameter and code; only the middleware encodes them. No
message may contain a host, a URL, a key or a prompt.
"""

from __future__ import annotations

from typing import Any

#: characters of a native error text that the client may see (F33): a few sentences, so that a page or a prompt that
#: the backend echoes is cut
MAX_TEXT = 500


#: the header of a 503; seconds: the queue of a busy backend shrinks with every response that ends
RETRY_AFTER = ("Retry-After", "2")


class APIError(Exception):
    """An error that the client receives as ``{"error": {"message", "type", "param", "code"}}``.

    :param status: HTTP status, 4xx or 5xx.
    :param param: path of the invalid request field, such as ``messages[0].content``.
    :param code: identifier for programs; OpenAI's where it has one.
    :param type: OpenAI's class of errors; derived from the status by default.
    :param headers: additional response headers.
    :param retry: value of ``x-should-retry``, by which OpenAI's clients decide whether to repeat the request; no such
        header by default.

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
        """Return the response body as JSON values, always with all four keys."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> APIError:
    """Return a 400 for a request that is not valid."""
    return APIError(400, message, param=param, code=code)


def missing(param: str) -> APIError:
    """Return a 400 for a required field that is absent."""
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def too_long(param: str, limit: int, length: int) -> APIError:
    """Return a 400 for an array with more than *limit* items."""
    text = f"Expected an array with maximum length {limit}, but got an array with length {length} instead."
    return invalid(f"Invalid '{param}': array too long. {text}", param, "array_above_max_length")


def not_supported(param: str, text: str) -> APIError:
    """Return a 400 for a parameter, or a value of one, that is not supported."""
    return APIError(400, f"Unsupported parameter: '{param}'. {text}", param=param, code="unsupported_parameter")


def overloaded(message: str, code: str = "overloaded") -> APIError:
    """Return a 503 after which a retry may succeed, soon."""
    return APIError(503, message, code=code, headers=(RETRY_AFTER,))


def invalid_output(message: str, code: str) -> APIError:
    """Return a 502 for generated output that does not meet the request.

    Clients should not retry: the tokens were generated, and generating them again costs as much.
    """
    return APIError(502, message, code=code, retry=False)


def answer_too_long() -> APIError:
    """Return a 502 for a native response that is too long to be collected."""
    return invalid_output("The backend's answer is too long.", "upstream_error")


def bad_gateway(message: str = "The backend sent an answer that could not be understood.") -> APIError:
    """Return a 502 for a failure of the backend after which a retry may succeed."""
    return APIError(502, message, code="upstream_error")


#: the error that the client sees for a defect of this package; the traceback is logged
INTERNAL_ERROR = APIError(500, "The gateway failed.", code="internal_error", retry=False)
