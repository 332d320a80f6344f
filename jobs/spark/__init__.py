"""Spark: the session of a client, and the server that it talks to."""
