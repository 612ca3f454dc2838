"""A Flask site with pages of its own, and OpenAI's API beside them, from an Ollama elsewhere.

Only ``/v1`` goes to the Ollama; all else is the site's, ``/api`` too. The site's login does not
guard ``/v1``. Needs flask; OLLAMA_URL is the Ollama, and PORT where the site listens::

    OLLAMA_URL=http://127.0.0.1:11434 python examples/flask_site.py
    curl http://127.0.0.1:5000/
    curl http://127.0.0.1:5000/v1/models
"""

from __future__ import annotations

import os

from flask import Flask

from openai_compat import OpenAICompat

app = Flask(__name__)
app.wsgi_app = OpenAICompat(app.wsgi_app, upstream=os.environ.get("OLLAMA_URL", "http://127.0.0.1:11434"))


@app.get("/")
def home() -> str:
    return "<h1>A Flask site</h1> <p>Its models are at <a href='/v1/models'>/v1/models</a>.</p>"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
