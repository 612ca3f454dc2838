"""The WSGI edge: requests are routed to endpoints or passed through, and responses are sent.

Only these modules see a client's environ and ``start_response``; endpoints get and return values.
"""
