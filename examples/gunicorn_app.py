"""OpenAI's API for an Ollama elsewhere, under gunicorn.

A stream keeps its thread until it ends, so there are many threads. Needs gunicorn; OPENAI_COMPAT_UPSTREAM or
OLLAMA_HOST is the Ollama::

    gunicorn --chdir examples --worker-class gthread --threads 64 --keep-alive 75 gunicorn_app:application

Run as it stands, this file does the same, and takes gunicorn's options::

    python examples/gunicorn_app.py --bind 127.0.0.1:8000
"""

from __future__ import annotations

import os
import sys

from openai_compat import OpenAICompat

# One connection to the Ollama for each thread. They are opened in the worker, on its first request.
upstream = os.environ.get("OPENAI_COMPAT_UPSTREAM") or os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
application = OpenAICompat(upstream, pool_size=64)

if __name__ == "__main__":
    from gunicorn.app.wsgiapp import WSGIApplication

    options = ["--chdir", os.path.dirname(os.path.abspath(__file__)), "--worker-class", "gthread", "--threads", "64"]
    # OpenAI's clients keep idle connections for seconds: gunicorn's 2 s could close one as the next request comes.
    options += ["--keep-alive", "75"]
    sys.argv[1:] = [*options, *sys.argv[1:], "gunicorn_app:application"]
    WSGIApplication(prog="gunicorn").run()
