"""``openai-compat record``: serve an Ollama as ``serve`` does, and record its native requests and responses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openai_compat.server.serve import ServerConfig, serve
from openai_compat.settings import Settings
from openai_compat.testing.recorder import Recorder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@dataclass(frozen=True)
class RecordingConfig(ServerConfig):
    """The configuration of a server that records."""

    #: path of the recording
    file: str = ""
    has_demo: ClassVar[bool] = False

    def backend(self, *, timeout: float | None = None) -> WSGIApplication:
        """Return a new native application; make it after the fork. The announcement's own requests are not recorded.

        :param timeout: seconds, instead of the settings' time-outs.
        """
        application = super().backend(timeout=timeout)
        return application if timeout is not None else Recorder(application, self.file)


def record(
    file: str,
    *,
    upstream: str,
    settings: Settings,
    bind: str | None,
    headers: Mapping[str, str],
    verify: bool | str,
    proxies: Mapping[str, str],
) -> int:
    """Serve and record until a signal stops the server, and return the exit status; 2 if it cannot start.

    :param file: path of the recording; one that exists is continued.
    :raises ValueError: the file cannot be written.
    """
    try:
        Recorder(_nothing, file).close()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    sys.stderr.write(
        f"openai-compat: prompts and answers are recorded as they are, in {file}; headers and keys are left out\n"
    )
    sys.stderr.flush()
    return serve(
        RecordingConfig(
            upstream=upstream,
            headers=headers,
            verify=verify,
            proxies=proxies,
            settings=settings,
            server={"bind": bind, "workers": 1},
            file=file,
        )
    )


def _nothing(environ: object, start_response: object) -> list[bytes]:
    """Take the place of the application while only the file is checked."""
    return []
