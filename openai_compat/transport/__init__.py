"""Calls of WSGI applications, in process or over HTTP. No request or response is interpreted here."""
