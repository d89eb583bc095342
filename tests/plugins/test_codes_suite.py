"""The contract suite of codes can fail: each breach is seen by the test that is there for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from aurixel_vouchers import Vouchers, VouchersSettings
from aurixel_vouchers.codes import read_code

from aurixel.plugin import CodeRefused, Redeemed, Secret
from aurixel.testing.codes_suite import CodesSuite
from aurixel.testing.host import PluginHost

FIVE = 5 * 10**9


class Anybody(Vouchers):
    """Gives a code to whoever asks."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        read = read_code(code.reveal())
        if read is None or await self.shelf.get(f"v:{read.id}") is None:
            raise CodeRefused("invalid")
        return Redeemed(payment=read.id, amount=FIVE)


class Forgetful(Vouchers):
    """Does not know its own customers again."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        read = read_code(code.reveal())
        if read is not None and (item := await self.shelf.get(f"v:{read.id}")) is not None and item.value["redeemed"]:
            raise CodeRefused("invalid")
        return await super().redeem(account, code)


class Unguarded(Vouchers):
    """Reads, then writes over whatever is there by then."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        read = read_code(code.reveal())
        item = await self.shelf.get(f"v:{read.id}") if read is not None else None
        if read is None or item is None or (item.value["redeemed"] or account) != account:
            raise CodeRefused("invalid")
        while not await self.shelf.swap(item.id, item.rev, {**item.value, "redeemed": account}):
            item = await self.shelf.get(item.id) or item
        return Redeemed(payment=read.id, amount=FIVE)


class Talkative(Vouchers):
    """Tells a used code from an unknown one."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        read = read_code(code.reveal())
        if read is not None and await self.shelf.get(f"v:{read.id}") is None:
            raise CodeRefused("mistyped")
        return await super().redeem(account, code)


class Patient(Vouchers):
    """Lets anybody guess for ever."""

    def __init__(self, settings: VouchersSettings, host: Any) -> None:
        super().__init__(VouchersSettings(attempts=1000, total_attempts=100_000), host)


class Hoarding(Vouchers):
    """Keeps the codes."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        await self.shelf.put(f"x:{account}", {"code": code.reveal()})
        return await super().redeem(account, code)


def suite(cls: type[Vouchers]) -> CodesSuite:
    class Suite(CodesSuite):
        plugin: ClassVar[str] = "vouchers"
        name: ClassVar[str] = "vouchers"

        def build(self, host: PluginHost, settings: Mapping[str, Any] | None = None) -> Vouchers:
            return cls(VouchersSettings(**(settings or {})), host)

        async def make_code(self, backend: Vouchers) -> Secret:
            _, (code,) = await backend.make(FIVE, 1, "ops")
            return code.text

    return Suite()


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (Anybody, "test_a_code_is_redeemed_once_and_again_for_the_same_account"),
        (Anybody, "test_whatever_answer_is_lost_one_account_has_it"),
        (Forgetful, "test_a_code_is_redeemed_once_and_again_for_the_same_account"),
        (Forgetful, "test_whatever_answer_is_lost_one_account_has_it"),
        (Unguarded, "test_of_many_at_once_one_has_it"),
        (Talkative, "test_unknown_and_used_are_one_answer_and_garbage_is_survived"),
        (Patient, "test_guessing_is_slowed_down_for_as_long_as_it_says"),
        (Hoarding, "test_no_code_is_kept"),
    ],
)
def test_a_breach_is_seen(cls: type[Vouchers], test: str) -> None:
    getattr(suite(Vouchers), test)()
    with pytest.raises((AssertionError, CodeRefused, pytest.fail.Exception)):
        getattr(suite(cls), test)()
