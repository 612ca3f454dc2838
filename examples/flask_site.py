"""A Flask site with pages of its own, and OpenAI's API beside them, from an Ollama elsewhere.

Only ``/v1`` goes to the Ollama; all else is the site's, ``/api`` too. The site's own guards do not
see ``/v1``: the function ``caller`` lets in whoever is logged in to the site. Needs flask;
OPENAI_COMPAT_UPSTREAM or OLLAMA_HOST is the Ollama, PASSWORD what opens the site, and PORT where it
listens::

    OLLAMA_HOST=127.0.0.1:11434 PASSWORD=sesame python examples/flask_site.py
    curl http://127.0.0.1:5000/
    curl -c jar --json '{"user": "ann", "password": "sesame"}' http://127.0.0.1:5000/login
    curl -b jar http://127.0.0.1:5000/v1/models
"""

from __future__ import annotations

import hmac
import os
import secrets
from typing import Any

from flask import Flask, request, session

from openai_compat import OpenAICompat

app = Flask(__name__)
app.secret_key = secrets.token_bytes()
password = os.environ.get("PASSWORD") or secrets.token_hex()


def caller(environ: dict[str, Any]) -> str | None:
    """Return who is logged in; with Flask-Login this is ``current_user.get_id()``."""
    with app.request_context(environ):
        return session.get("user")


upstream = os.environ.get("OPENAI_COMPAT_UPSTREAM") or os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
app.wsgi_app = OpenAICompat(app.wsgi_app, upstream=upstream, authenticate=caller)


@app.get("/")
def home() -> str:
    return "<h1>A Flask site</h1> <p>Its models are at <a href='/v1/models'>/v1/models</a>.</p>"


@app.post("/login")
def login() -> tuple[dict[str, bool], int]:
    given = request.get_json()
    if not hmac.compare_digest(str(given.get("password")).encode(), password.encode()):
        return {"welcome": False}, 403
    session["user"] = str(given.get("user"))
    return {"welcome": True}, 200


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
