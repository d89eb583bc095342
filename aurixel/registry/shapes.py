"""Checks that a class fulfils its contract before the gateway listens, so that no request is the first to find out.

It looks at attributes, methods, whether they are plain or async, and how many arguments they take; what they do is the
business of the contract suites in `aurixel.testing`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import BaseModel

NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")

# Keys of a plugin's block that are the host's own: a setting of that name would never get a value.
UPSTREAM_KEYS: Final = frozenset(
    {"provider", "connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "settings"}
)
PAYMENT_KEYS: Final = frozenset({"deadline", "settings"})
POLICY_KEYS: Final = frozenset({"on_error", "deadline", "settings"})


class Method(msgspec.Struct, frozen=True):
    """A method as the host calls it: `arguments` by position, after self."""

    name: str
    arguments: int
    is_async: bool = False
    optional: bool = False


PROVIDER: Final = (
    Method("__init__", 2),
    Method("prepare", 2),
    Method("classify", 3),
    Method("open", 1, optional=True),
)
POLICY_CHECK: Final = (
    Method("__init__", 2),
    Method("parse_limit", 2),
    Method("check", 2, is_async=True),
    Method("finished", 1, optional=True),
)
TAKES_PAYMENT: Final = (
    Method("begin_topup", 1, is_async=True),
    Method("parse_webhook", 2),
    Method("refund", 4, is_async=True),
)
REDEEMS_CODES: Final = (Method("redeem", 2, is_async=True),)
BILLING: Final = (
    Method("__init__", 2),
    Method("reconcile", 1, is_async=True, optional=True),
)
DIALECT: Final = (
    Method("__init__", 0),
    Method("parse_request", 2),
    Method("patch_request", 2),
    Method("bound_input", 2),
    Method("estimate_input", 2),
    Method("reply_reader", 2),
    Method("stream_reader", 1),
    Method("encode_error", 2),
    Method("encode_stream_error", 2),
)


def provider_faults(cls: type[Any]) -> list[str]:
    """What keeps a class from being a `Provider`, in words for its author; empty if nothing does."""
    faults = [*_name(cls, "kind"), *_settings(cls, UPSTREAM_KEYS), *_methods(cls, PROVIDER)]
    dialects = getattr(cls, "dialects", None)
    if not isinstance(dialects, Mapping) or not dialects:
        faults.append("`dialects` is not a mapping of operations to names of dialects")
    else:
        for operation, names in dialects.items():
            if not isinstance(operation, str) or not _strings(names) or not names:
                faults.append(f"`dialects[{operation!r}]` is not a list of names of dialects")
    return faults


def check_faults(cls: type[Any]) -> list[str]:
    """What keeps a class from being a `PolicyCheck`."""
    faults = [*_name(cls, "name"), *_settings(cls, POLICY_KEYS), *_methods(cls, POLICY_CHECK)]
    enforces = getattr(cls, "enforces", None)
    if not isinstance(enforces, frozenset) or not all(isinstance(name, str) for name in enforces):
        faults.append("`enforces` is not a frozenset of names of key limits")
    return faults


def backend_faults(cls: type[Any]) -> list[str]:
    """What keeps a class from being a `BillingBackend`: all of `TakesPayment`, or of `RedeemsCodes`, or of both."""
    faults = [*_name(cls, "name"), *_settings(cls, PAYMENT_KEYS), *_methods(cls, BILLING)]
    parts = [methods for methods in (TAKES_PAYMENT, REDEEMS_CODES) if any(_defines(cls, method.name) for method in methods)]
    if not parts:
        faults.append("there is neither a method `begin_topup` (`TakesPayment`) nor `redeem` (`RedeemsCodes`)")
    return [*faults, *(fault for methods in parts for fault in _methods(cls, methods))]


def dialect_faults(cls: type[Any]) -> list[str]:
    """What keeps a class from being a `Dialect`."""
    names = [fault for attribute in ("name", "family", "operation") for fault in _name(cls, attribute)]
    return [*names, *_methods(cls, DIALECT)]


def _name(cls: type[Any], attribute: str) -> list[str]:
    value = getattr(cls, attribute, None)
    if isinstance(value, str) and NAME.fullmatch(value):
        return []
    return [f"`{attribute}` is not a name of lower-case letters, digits, - and _"]


def _settings(cls: type[Any], taken: frozenset[str]) -> list[str]:
    settings = getattr(cls, "Settings", None)
    if not isinstance(settings, type) or not issubclass(settings, BaseModel):
        return ["`Settings` is not a pydantic model (subclass aurixel.plugin.PluginSettings)"]
    names = {field.alias or name for name, field in settings.model_fields.items()}
    return [f"`Settings.{name}` is a key of the host's own" for name in sorted(names & taken)]


def _strings(names: object) -> bool:
    return isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)


def _methods(cls: type[Any], methods: Iterable[Method]) -> list[str]:
    return [fault for method in methods if (fault := _method(cls, method))]


def _method(cls: type[Any], method: Method) -> str | None:
    if not _defines(cls, method.name):
        return None if method.optional or not method.arguments else f"there is no method `{method.name}`"
    found = getattr(cls, method.name)
    if not callable(found):
        return f"`{method.name}` is not a method"
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        return f"`{method.name}` is a generator" + (": decorate it with @asynccontextmanager" * (method.name == "open"))
    if inspect.iscoroutinefunction(found) is not method.is_async:
        return f"`{method.name}` must be " + ("`async def`" if method.is_async else "a plain `def`")
    bound = isinstance(inspect.getattr_static(cls, method.name), staticmethod | classmethod)
    arguments = [None] * (method.arguments + (not bound))
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError:
        return f"`{method.name}` cannot be called with {method.arguments} arguments by position"
    return None


def _defines(cls: type[Any], name: str) -> bool:
    """Whether the class or a base has it; what `object` and the protocols themselves have does not count."""
    definer = next((base for base in cls.__mro__ if name in vars(base)), object)
    return definer is not object and not vars(definer).get("_is_protocol", False)
