"""The WSGI edge: where requests enter, are routed, and are answered. Only here does a client's environ matter."""
