"""The official SDKs' own published test suites, sent through a gateway to a mock server that knows the vendors' specs."""
