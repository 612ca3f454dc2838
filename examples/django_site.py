"""A Django site with a page of its own, and OpenAI's API beside it, from an Ollama elsewhere.

Only ``/v1`` goes to the Ollama; all else is the site's, ``/api`` too. The site's own guards do not
see ``/v1``: the function ``caller`` lets in whoever is logged in to the site. In a project of your
own, ``caller`` and the line that makes ``application`` belong in ``wsgi.py``. Needs django;
OPENAI_COMPAT_UPSTREAM or OLLAMA_HOST is the Ollama, PASSWORD what opens the site, and PORT where it
listens::

    OLLAMA_HOST=127.0.0.1:11434 PASSWORD=sesame python examples/django_site.py
    curl http://127.0.0.1:5000/
    curl -c jar --json '{"user": "ann", "password": "sesame"}' http://127.0.0.1:5000/login
    curl -b jar http://127.0.0.1:5000/v1/models
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from werkzeug.serving import run_simple

from openai_compat import OpenAICompat

password = os.environ.get("PASSWORD") or secrets.token_hex()


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>A Django site</h1> <p>Its models are at <a href='/v1/models'>/v1/models</a>.</p>")


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    given = json.loads(request.body)
    if not hmac.compare_digest(str(given.get("password")).encode(), password.encode()):
        return JsonResponse({"welcome": False}, status=403)
    request.session["user"] = str(given.get("user"))
    return JsonResponse({"welcome": True})


urlpatterns = [path("", home), path("login", login)]
settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    SECRET_KEY=secrets.token_hex(),
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)


def caller(environ: dict[str, Any]) -> str | None:
    """Return who is logged in; with django.contrib.auth this is ``get_user(request).get_username()``."""
    close_old_connections()
    try:
        request = WSGIRequest(environ)
        SessionMiddleware(lambda request: None).process_request(request)
        return request.session.get("user")
    finally:
        close_old_connections()


upstream = os.environ.get("OPENAI_COMPAT_UPSTREAM") or os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
application = OpenAICompat(get_wsgi_application(), upstream=upstream, authenticate=caller)

if __name__ == "__main__":
    run_simple("127.0.0.1", int(os.environ.get("PORT", "5000")), application, threaded=True)
