"""Aurixel policy plugin: request, token and concurrency limits per key."""
