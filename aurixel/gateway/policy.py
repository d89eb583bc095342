"""Asks the enabled policy checks, in the configured order, and tells them how it ended; it decides nothing itself.

Each check has a deadline and an `on_error` word; what a check raises is counted and follows that word, never the
process. `finished` is called exactly once for every request a check was asked about, on every exit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Final, Literal

import msgspec

from aurixel.errors import PolicyError
from aurixel.plugin.contracts import Allow, Deny, PolicyCheck, Rewrite, Verdict, WatchesEnd
from aurixel.registry import CallSite, PluginFailed, PluginMeter
from aurixel.values import Outcome, Principal, RequestFacts

_NAME: Final = re.compile(r"[a-z0-9-]+")
_VERDICTS: Final = (Allow, Deny, Rewrite)
_FRAMING: Final = frozenset({"connection", "content-encoding", "content-length", "content-type", "transfer-encoding"})


class BoundCheck:
    """A check as configured: `deadline` in seconds, `on_error` what its failure means; its calls are timed and counted."""

    __slots__ = ("_site", "_told", "_watcher", "check", "deadline", "on_error", "watches")

    def __init__(self, check: PolicyCheck, *, deadline: float, on_error: Literal["deny", "allow"], meter: PluginMeter) -> None:
        self.check, self.deadline, self.on_error = check, deadline, on_error
        self._watcher = check if isinstance(check, WatchesEnd) else None
        self.watches = self._watcher is not None  # whether the check must be told how the request ended
        self._site, self._told = CallSite(check.name, "check", meter), CallSite(check.name, "finished", meter)

    async def ask(self, principal: Principal, facts: RequestFacts) -> Verdict:
        """The check's verdict; a check that fails, or answers something else, allows or denies as configured."""
        try:
            verdict: object = await self._site.bounded(self.check.check(principal, facts), self.deadline)
        except PluginFailed:
            return self._on_error()
        if isinstance(verdict, _VERDICTS) and _sendable(verdict.headers):
            return verdict
        self._site.failed(TypeError())
        return self._on_error()

    def _on_error(self) -> Verdict:
        if self.on_error == "allow":
            return Allow()
        return Deny(
            code="policy_unavailable",
            message="A policy check could not decide. Try again shortly.",
            status=503,
            retry_after=1,
        )

    def tell(self, outcome: Outcome) -> None:
        """Tell the check how the request ended."""
        if self._watcher is not None:
            self._told.tell(self._watcher.finished, outcome)


@lru_cache(maxsize=256)
def _good_name(name: str) -> bool:
    return name not in _FRAMING and _NAME.fullmatch(name) is not None


def _sendable(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether a check's headers can go on a reply: printable, and not those that frame it."""
    for name, value in headers:  # noqa: SIM110 - a generator costs more than what it does here
        if not (_good_name(name) and value.isascii() and value.isprintable()):
            return False
    return True


class Permit:
    """The checks' yes, as an `async with`: `headers` for the reply, `model` if a check rewrote it.

    Set `outcome` as soon as somebody can tell how it ends; without it the checks are told it was `refused`.
    """

    __slots__ = ("_asked", "_facts", "_policy", "_principal", "headers", "model", "outcome")

    def __init__(self, policy: Policy, principal: Principal, facts: RequestFacts) -> None:
        self._policy, self._principal, self._facts = policy, principal, facts
        self._asked: list[BoundCheck] = []
        self.headers: tuple[tuple[str, str], ...] = ()
        self.model = facts.model
        self.outcome: Callable[[], Outcome] | None = None

    async def __aenter__(self) -> Permit:
        try:
            for bound in self._policy.checks:
                if bound.watches:
                    self._asked.append(bound)
                self._take(await bound.ask(self._principal, self._facts))
        except BaseException:
            self.tell()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tell()

    def _take(self, verdict: Verdict) -> None:
        self.headers += verdict.headers
        if isinstance(verdict, Deny):
            raise PolicyError(
                verdict.code,
                verdict.message,
                status=verdict.status,
                retry_after=verdict.retry_after,
                headers=self.headers,
            )
        if isinstance(verdict, Rewrite):
            self.model = verdict.model
            self._facts = msgspec.structs.replace(self._facts, model=verdict.model)

    def tell(self) -> None:
        """Tell the checks how it ended; the first call counts, and leaving makes one."""
        asked, self._asked = self._asked, []
        if not asked:
            return
        outcome = self.outcome() if self.outcome else Outcome(request_id=self._facts.request_id, ending="refused")
        for bound in asked:
            bound.tell(outcome)


class Policy:
    """The enabled checks, in order."""

    def __init__(self, checks: Sequence[BoundCheck]) -> None:
        self.checks = tuple(checks)

    def ask(self, principal: Principal, facts: RequestFacts) -> Permit:
        """`async with policy.ask(...) as permit`: raises `PolicyError` when a check says no."""
        return Permit(self, principal, facts)
