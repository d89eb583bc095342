"""The dialects, tested from bytes: goldens cut at every place, fuzz, and the official SDKs as judges."""
