"""The configuration: aurixel.toml and its overrides as one frozen value, or every fault in it, with place and mend."""

from aurixel.config.loading import load
from aurixel.config.safety import serve_faults
from aurixel.config.sections import Address, PaymentBlock, PolicyBlock, Settings, UpstreamBlock

__all__ = ["Address", "PaymentBlock", "PolicyBlock", "Settings", "UpstreamBlock", "load", "serve_faults"]
