"""Tests of aurixel.workers; whole processes are in tests/flow/test_workers.py."""
