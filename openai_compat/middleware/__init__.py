"""The WSGI edge: routes, request bodies, responses."""
