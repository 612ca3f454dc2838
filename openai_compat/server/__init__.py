"""The command line and the server: what runs the middleware outside another program."""
