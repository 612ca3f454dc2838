"""An application made before gevent patches, as ``gunicorn --worker-class gevent --preload`` does.

gunicorn's master imports the application; the worker patches the standard library after the fork. requests and urllib3
must not be there yet: they keep the classes of an ssl that is not patched, and every https request could end in a
RecursionError. (werkzeug imports ssl itself, but keeps none of its classes.)
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers import ENDING, TIMEOUT, command, refusing

pytestmark = pytest.mark.server

LATE = ("requests", "urllib3")

CONSTRUCTIONS = {
    "a URL": "OpenAICompat('https://ollama.invalid')",
    "a form of OLLAMA_HOST": "OpenAICompat('localhost:11434')",
    "an upstream of a site": "OpenAICompat(lambda environ, start_response: [], upstream='https://ollama.invalid')",
    "an Upstream": "OpenAICompat(Upstream('https://ollama.invalid', headers={'X-Team': 'red'}, timeout=5))",
    "its text": "repr(Upstream('https://me:secret@ollama.invalid'))",
}


@pytest.mark.parametrize("construction", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)
def test_nothing_of_requests_is_imported_before_the_first_call(construction: str) -> None:
    code = (
        "import sys\n"
        "from openai_compat import OpenAICompat, Upstream\n"
        f"made = {construction}\n"
        f"print([name for name in {LATE} if name in sys.modules])\n"
    )
    ended = command(python=("-c", code))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("url", ["ftp://box", "http://box/v1", "http://box:0"])
def test_a_bad_url_is_refused_when_it_is_given(url: str) -> None:
    """Not at the first call: the import is late, the check is not."""
    code = f"from openai_compat import OpenAICompat\nOpenAICompat({url!r})\n"
    ended = command(python=("-c", code))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ValueError: ")


# -- under gunicorn ---------------------------------------------------------------------------


@contextmanager
def gunicorn(directory: Path, upstream: str) -> Iterator[tuple[int, Path]]:
    """Run an application under gunicorn's gevent worker, preloaded; its port, and the file of its output."""
    (directory / "site_of_gevent.py").write_text(
        f"from openai_compat import OpenAICompat\napplication = OpenAICompat({upstream!r})\n"
    )
    output = directory / "output"
    arguments = ["--chdir", str(directory), "--worker-class", "gevent", "--preload", "--bind", "127.0.0.1:0"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GUNICORN_")}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments, "site_of_gevent:application"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ | {"XDG_RUNTIME_DIR": str(directory), "PYTHONWARNINGS": "default"},
        )
        assert process.stdout is not None
        try:
            yield _port(process), output
        finally:
            process.terminate()
            file.write(process.communicate(timeout=ENDING)[0])


def _port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    text, deadline = b"", time.monotonic() + TIMEOUT
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (found := re.search(rb"Listening at: http://127\.0\.0\.1:(\d+)", text)):
            assert selector.select(max(0.0, deadline - time.monotonic())), text
            data = os.read(process.stdout.fileno(), 65536)
            assert data, text
            text += data
    return int(found[1])


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")
def test_https_works_under_gevent_with_preload(tmp_path: Path) -> None:
    """The upstream does not answer; a RecursionError of ssl would be a 500, and a traceback."""
    with (
        refusing() as url,
        gunicorn(tmp_path, url.replace("http:", "https:")) as (port, output),
        closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as http,
    ):
        http.request("GET", "/v1/models")
        response = http.getresponse()
        assert (response.status, b"upstream_unreachable" in response.read()) == (502, True)
    text = output.read_text()
    assert "MonkeyPatchWarning" not in text
    assert "RecursionError" not in text
    assert "Traceback" not in text
