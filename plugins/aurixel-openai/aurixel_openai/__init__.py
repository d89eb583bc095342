"""Aurixel provider plugin: upstreams that speak the OpenAI API."""
