"""The contract of a billing backend whose credit comes as codes, as tests that its author runs.

    from aurixel.testing.codes_suite import CodesSuite

    class TestMine(CodesSuite):
        plugin = "mine"                                        # the entry point
        name = "mine"
        settings = {}

        async def make_code(self, backend):                    # a new code that is good, as your commands make it
            ...

It promises that a backend which passes gives each code to one account, once, whatever is lost on the way, tells nobody more
than it may, keeps no code, and slows guessing down. What a code is worth is the plugin's own tests' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, Final

import pytest

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.plugin.billing import CodeRefused, Redeemed, RedeemsCodes
from aurixel.registry import Registry
from aurixel.testing.host import MemoryShelf, PluginHost
from aurixel.values import Secret

_MANY: Final = 40
_GARBAGE: Final = ("", " ", "x", "0" * 10_000, "\0", "ÿ" * 30, "'; DROP TABLE codes; --", "🂡🂢")


class CodesSuite:
    """Subclass it, name the class `Test...`, set every attribute, and define `make_code`.

    `guesses`: after how many wrong codes an account must have been slowed down.
    """

    plugin: ClassVar[str]
    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    guesses: ClassVar[int] = 100

    async def make_code(self, backend: Any) -> Secret:
        """A new code of this backend that is good."""
        raise NotImplementedError

    def registry(self) -> Registry:
        """The plugin, loaded as the gateway loads it."""
        return Registry.load([self.plugin])

    def build(self, host: PluginHost, settings: Mapping[str, Any] | None = None) -> RedeemsCodes:
        """An instance, built as the gateway builds it."""
        backend = self.registry().build_backend(self.name, self.settings if settings is None else settings, host)
        assert isinstance(backend, RedeemsCodes), f"{self.name} redeems no codes"
        return backend

    # --- start ---------------------------------------------------------------------------------------------------------

    def test_it_loads_and_is_the_plugins_own(self) -> None:
        """Loading checks hooks and classes: what is wrong with them is in the error."""
        assert self.registry().owner("billing backend", self.name) == self.plugin
        self.build(PluginHost())

    def test_settings_it_does_not_know_are_refused(self) -> None:
        """A typing mistake must not pass for a setting."""
        with pytest.raises(ConfigError, match="no_such_setting_at_all"):
            self.build(PluginHost(), {**self.settings, "no_such_setting_at_all": 1})

    # --- one code, one account -------------------------------------------------------------------------------------------

    def test_a_code_is_redeemed_once_and_again_for_the_same_account(self) -> None:
        """The answer is the same however often it is asked: that is what a crash is mended by."""

        async def work() -> None:
            backend = self.build(PluginHost())
            code, other = await self.make_code(backend), await self.make_code(backend)
            first = await backend.redeem("a", code)
            assert isinstance(first, Redeemed)
            assert first.payment
            assert type(first.amount) is int
            assert first.amount > 0
            assert await backend.redeem("a", code) == first
            assert await answer(backend.redeem("b", code)) == "invalid"
            assert (await backend.redeem("a", other)).payment != first.payment

        asyncio.run(work())

    def test_of_many_at_once_one_has_it(self) -> None:
        """Through two instances on one shelf, as of two processes."""

        async def work() -> None:
            shelf = MemoryShelf()
            both = [self.build(PluginHost(shelf=shelf)) for _ in range(2)]
            code = await self.make_code(both[0])
            calls = [answer(both[number % 2].redeem(f"account-{number}", code)) for number in range(_MANY)]
            answers = await asyncio.gather(*calls)
            assert sum(isinstance(each, Redeemed) for each in answers) == 1

        asyncio.run(work())

    def test_whatever_answer_is_lost_one_account_has_it(self) -> None:
        """Each call to the shelf in turn, with and without its effect; then the same account again, and another."""

        async def work(lost: int, done: bool) -> bool:
            shelf = _Losing()
            backend = self.build(PluginHost(shelf=shelf))
            code = await self.make_code(backend)
            shelf.left, shelf.done = lost, done
            first = await answer(backend.redeem("a", code))
            reached, shelf.left = shelf.left < 0, -1
            again, other = await answer(backend.redeem("a", code)), await answer(backend.redeem("b", code))
            assert isinstance(again, Redeemed), f"lost {lost}: asked again the answer is {again}"
            assert first in (again, None)
            assert other == "invalid"
            return reached

        for done in (False, True):
            assert any(not asyncio.run(work(lost, done)) for lost in range(50)), "a redemption asks the shelf fifty times"

    # --- what others hear, and what is kept --------------------------------------------------------------------------------

    def test_unknown_and_used_are_one_answer_and_garbage_is_survived(self) -> None:
        """Who guesses must not learn which codes there are."""

        async def work() -> None:
            backend = self.build(PluginHost())
            used, unknown = await self.make_code(backend), await self.make_code(self.build(PluginHost()))
            await backend.redeem("a", used)
            refusals = [await answer(backend.redeem(account, code)) for account, code in (("b", used), ("c", unknown))]
            assert refusals == ["invalid", "invalid"]
            for number, garbage in enumerate(_GARBAGE):
                assert await answer(backend.redeem(f"g{number}", Secret(garbage))) in ("invalid", "mistyped", "throttled")

        asyncio.run(work())

    def test_guessing_is_slowed_down_for_as_long_as_it_says(self) -> None:
        """And for nobody else."""

        async def work() -> None:
            host = PluginHost()
            backend = self.build(host)
            good, unknown = await self.make_code(backend), await self.make_code(self.build(PluginHost()))
            wait: float | None = None
            for _ in range(self.guesses):
                with pytest.raises(CodeRefused) as caught:
                    await backend.redeem("a", unknown)
                if caught.value.code == "throttled":
                    wait = caught.value.retry_after
                    break
            assert wait, f"{self.guesses} wrong codes were looked at, or the refusal does not say how long to wait"
            host.clock.advance(wait)
            assert await answer(backend.redeem("a", unknown)) == "invalid"
            assert isinstance(await answer(backend.redeem("b", good)), Redeemed)

        asyncio.run(work())

    def test_no_code_is_kept(self) -> None:
        """Not on the shelf, and not in what names the payment."""

        async def work() -> None:
            shelf = MemoryShelf()
            backend = self.build(PluginHost(shelf=shelf))
            code = await self.make_code(backend)
            done = await backend.redeem("a", code)
            for kept in (str(shelf.docs), done.payment):
                assert code.reveal() not in kept
                assert _plain(code.reveal()) not in _plain(kept)

        asyncio.run(work())


async def answer(redeeming: Coroutine[Any, Any, Redeemed]) -> Redeemed | str | None:
    """What came of it: the word of the refusal, None where the store gave no answer."""
    try:
        return await redeeming
    except CodeRefused as refused:
        return refused.code
    except StoreUnavailable:
        return None


class _Losing(MemoryShelf):
    """Loses the answer of the call after `left` others."""

    left = -1
    done = False

    async def _turn(self, call: str, *, told: bool = True) -> bool | None:
        if self.left >= 0:
            if self.left == 0:
                self._faults.append((call, self.done))
            self.left -= 1
        return await super()._turn(call, told=told)


def _plain(text: str) -> str:
    return "".join(symbol for symbol in text.upper() if symbol.isalnum())
