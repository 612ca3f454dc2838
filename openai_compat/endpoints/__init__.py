"""OpenAI's API, one module or package for each resource: its structs, ``from_*``, ``to_*`` and endpoint functions.

An endpoint never imports another; what two of them need sinks to a lower floor, or into ``contract.py``.
"""
