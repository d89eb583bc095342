"""Aurixel provider plugin: upstreams that speak the Anthropic Messages API."""
