"""Whole requests over real sockets: the gateway as its users meet it. One process here; real kills are in test_kill."""
