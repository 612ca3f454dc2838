"""One module a resource: its structs, ``from_*``, ``to_*`` and the endpoint functions. None imports another."""
