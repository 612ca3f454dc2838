"""OpenAI's API, one module or package for each resource.

Each has the structs of requests and responses, ``from_*`` and ``to_*`` functions that map to and from the native API,
and endpoint functions. An endpoint never imports another; code that two endpoints need belongs to a lower room, or to
``contract.py``.
"""
