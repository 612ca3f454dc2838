"""Tests inside Django: what its own test client reaches, and what a test does in its place, as the README says.

The block of the README is run in a project too, with a recording.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openai_compat.testing import done, say
from tests.servers import command
from tests.test_docs import blocks

pytestmark = pytest.mark.server

pytest.importorskip("django", reason="django is not installed")

#: a project of one module, with a test that reads and writes the database
PROJECT = """
import os, sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

def home(request):
    from django.contrib.auth.models import User
    return HttpResponse(f"{User.objects.count()} users")

urlpatterns = [path("", home)]
settings.configure(
    ROOT_URLCONF="__main__",
    ALLOWED_HOSTS=["localhost"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)

import django
django.setup()

from django.contrib.auth.models import User
from django.core.wsgi import get_wsgi_application
from django.test import TestCase
from django.test.runner import DiscoverRunner
from webtest import TestApp

from openai_compat import OpenAICompat
from openai_compat.testing import FakeOllama, done, say

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

class SiteTest(TestCase):
    def setUp(self):
        User.objects.create(username="a")
        self.fake = FakeOllama()
        self.site = TestApp(OpenAICompat(get_wsgi_application(), upstream=self.fake), {"HTTP_HOST": "localhost"})

    def test_the_client_of_django_does_not_reach_v1(self):
        self.assertEqual(self.client.post("/v1/chat/completions", REQUEST, "application/json").status_code, 404)
        self.assertEqual(self.client.get("/").content, b"1 users")
        self.assertEqual(self.fake.requests, [])

    def test_a_client_of_the_wsgi_application_does(self):
        for text in ("Hello", "again"):
            self.fake.script("/api/chat", say(text), done())
            answer = self.site.post_json("/v1/chat/completions", REQUEST)
            self.assertEqual(answer.json["choices"][0]["message"]["content"], text)
            self.assertEqual(self.site.get("/").text, "1 users")  # in the transaction of the test
        self.fake.assert_all_used()

exec(README)

import unittest
runner = DiscoverRunner(verbosity=1)
runner.setup_test_environment()
databases = runner.setup_databases()
tests = [unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in (SiteTest, ChatTest)]
result = unittest.TextTestRunner().run(unittest.TestSuite(tests))
runner.teardown_databases(databases)
sys.exit(not result.wasSuccessful())
"""


def test_tests_inside_django_reach_v1_by_the_wsgi_application(tmp_path: Path) -> None:
    body = "".join(json.dumps(line) + "\n" for line in (say("Hello"), done()))
    native = {"method": "POST", "path": "/api/chat", "request": None, "status": 200, "body": body}
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"name": "chat", "native": {**native, "content_type": "application/x-ndjson"}}))
    [block] = [block for block in blocks("python") if "TestCase" in block]
    assert "tests/chat.jsonl" in block
    block = block.replace("tests/chat.jsonl", str(file))
    found = command("-c", f"README = {block!r}\n{PROJECT}", python=())
    assert found.returncode == 0, found.stderr
    assert "Ran 3 tests" in found.stderr
