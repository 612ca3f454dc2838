"""A Django site with a page of its own, and OpenAI's API beside it, from an Ollama elsewhere.

Only ``/v1`` goes to the Ollama; all else is the site's, ``/api`` too. The site's login does not
guard ``/v1``. In a project of your own, the line that makes ``application`` belongs in
``wsgi.py``. Needs django; OLLAMA_URL is the Ollama, and PORT where the site listens::

    OLLAMA_URL=http://127.0.0.1:11434 python examples/django_site.py
    curl http://127.0.0.1:5000/
    curl http://127.0.0.1:5000/v1/models
"""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from werkzeug.serving import run_simple

from openai_compat import OpenAICompat


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>A Django site</h1> <p>Its models are at <a href='/v1/models'>/v1/models</a>.</p>")


urlpatterns = [path("", home)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])

application = OpenAICompat(get_wsgi_application(), upstream=os.environ.get("OLLAMA_URL", "http://127.0.0.1:11434"))

if __name__ == "__main__":
    run_simple("127.0.0.1", int(os.environ.get("PORT", "5000")), application, threaded=True)
