"""Fixtures of the product itself that many rooms' tests share. The harness (logs, loop, servers) is tests/harness/."""
