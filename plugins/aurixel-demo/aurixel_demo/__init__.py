"""Aurixel provider plugin: canned answers without any upstream, for a first look and for tests."""
