"""Choices from native streams, for every endpoint that generates text: native calls are run, and their messages mapped.

No module here knows the request or the response of an endpoint; time, ids and limits are arguments.
"""
