"""Limits of a key: models, addresses, requests and tokens a minute, concurrency. It counts in this process only."""

from aurixel.plugin import PolicyCheck, hookimpl
from aurixel_limits.check import Limits, LimitsSettings

__all__ = ["Limits", "LimitsSettings", "register_policy_checks"]


@hookimpl
def register_policy_checks() -> list[type[PolicyCheck]]:
    """The check `limits`."""
    return [Limits]
