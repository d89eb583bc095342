"""Aurixel: an OpenAI- and Anthropic-compatible gateway to third-party models on prepaid credit.

This package imports nothing when it is imported, so that `import aurixel.plugin` stays cheap for plugin authors.
"""

__version__ = "0.1.0"
