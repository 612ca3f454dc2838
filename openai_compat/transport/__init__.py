"""A WSGI call, in process or over HTTP, and what it needs: connections, URLs, headers, cancelling."""
