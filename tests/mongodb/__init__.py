"""A MongoDB for the tests, real or compatible: see fixture.py."""
