"""The command line and the server, which run the middleware as a program of its own.

Nothing here belongs to the library: no other room imports this one, and gunicorn is imported only when it serves.
"""
