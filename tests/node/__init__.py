"""Node for the tests: the official SDKs of both families as strangers use them, and an upstream not of our own making."""
