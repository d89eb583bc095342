"""The backend: a code is some account's once, whoever asks at once, and nobody hears more than they may."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from aurixel_vouchers import Vouchers, VouchersSettings
from aurixel_vouchers.backend import Revoked, Unfinished
from aurixel_vouchers.codes import Code
from aurixel_vouchers.records import Batch, Redemption, Revocation, Voucher, batches, vouchers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pydantic import ValidationError

from aurixel.plugin import CodeRefused, Redeemed, RedeemsCodes, Secret, StoreUnavailable
from aurixel.testing.codes_suite import CodesSuite
from aurixel.testing.host import ManualClock, MemoryShelf, PluginHost

FIVE = 5 * 10**9
DAY_MS = 86_400_000


class TestContract(CodesSuite):
    plugin = "vouchers"
    name = "vouchers"

    async def make_code(self, backend: Vouchers) -> Secret:
        _, (code,) = await backend.make(FIVE, 1, "ops")
        return code.text


class Desk:
    """A backend on a shelf for tests, and what a test asks of it."""

    def __init__(self, shelf: MemoryShelf | None = None, clock: ManualClock | None = None, **given: Any) -> None:
        self.shelf, self.clock = shelf or MemoryShelf(), clock or ManualClock()
        self.backend = Vouchers(VouchersSettings(**given), PluginHost(self.clock, self.shelf))

    async def one(self, **given: Any) -> Code:
        _, (code,) = await self.backend.make(FIVE, 1, "ops", **given)
        return code

    async def redeem(self, account: str, code: Code) -> Redeemed | str:
        """What came of it: the code of the refusal, if it was refused."""
        try:
            return await self.backend.redeem(account, code.text)
        except CodeRefused as refused:
            return refused.code

    async def kept(self, code: Code) -> Voucher:
        return {name: voucher async for name, voucher in vouchers(self.shelf)}[code.id]


async def test_a_batch_is_made_and_leaves_its_trail() -> None:
    desk = Desk()
    told: list[tuple[int, int]] = []
    expires = desk.clock.wall_ms() + DAY_MS
    batch, codes = await desk.backend.make(
        FIVE, 150, "ada", expires_ms=expires, note="conference", told=lambda done, of: told.append((done, of))
    )
    assert len({code.text.reveal() for code in codes}) == 150
    assert {code.batch for code in codes} == {batch}
    assert told == [(64, 150), (128, 150), (150, 150)]
    kept = {
        batch: Batch(amount=FIVE, count=150, author="ada", made_ms=desk.clock.wall_ms(), expires_ms=expires, note="conference")
    }
    assert {name: one async for name, one in batches(desk.shelf)} == kept
    made = {name: one async for name, one in vouchers(desk.shelf, batch)}
    assert made == {code.id: Voucher(hash=code.hash, amount=FIVE, expires_ms=expires) for code in codes}


async def test_a_code_is_kept_as_a_hash_only() -> None:
    desk = Desk()
    code = await desk.one()
    await desk.redeem("a", code)
    plain = code.text.reveal().replace("-", "")
    kept = str(desk.shelf.docs).upper()
    assert plain not in kept.replace("-", "")
    assert not [start for start in range(4, 20) if plain[start : start + 9] in kept]


async def test_a_code_is_redeemed_once_and_again_for_the_same_account() -> None:
    desk = Desk()
    code = await desk.one()
    assert isinstance(desk.backend, RedeemsCodes)
    done = await desk.redeem("a", code)
    assert done == Redeemed(payment=code.id, amount=FIVE)
    at = desk.clock.wall_ms()
    desk.clock.advance(1000)
    assert await desk.redeem("a", code) == done
    assert await desk.redeem("b", code) == "invalid"
    assert (await desk.kept(code)).redeemed == Redemption("a", at)


async def test_unknown_used_revoked_and_expired_are_one_answer() -> None:
    desk = Desk(attempts=1000)
    unknown = await Desk().one()
    used, revoked, expired = await desk.one(), await desk.one(), await desk.one(expires_ms=desk.clock.wall_ms() + 1000)
    await desk.redeem("b", used)
    await desk.backend.revoke(revoked.id, "ops", "lost")
    desk.clock.advance(1)
    answers = []
    for code in (unknown, used, revoked, expired):
        with pytest.raises(CodeRefused) as refused:
            await desk.backend.redeem("a", code.text)
        answers.append((refused.value.code, refused.value.retry_after, str(refused.value)))
    assert set(answers) == {("invalid", None, "invalid")}


async def test_a_code_that_expires_later_is_good_until_then_and_its_account_hears_the_same_afterwards() -> None:
    desk = Desk()
    code = await desk.one(expires_ms=desk.clock.wall_ms() + 1000)
    desk.clock.advance(0.999)
    done = await desk.redeem("a", code)
    assert isinstance(done, Redeemed)
    desk.clock.advance(10)
    assert await desk.redeem("a", code) == done
    assert await desk.redeem("b", code) == "invalid"


async def test_a_code_with_the_same_id_but_another_hash_is_not_it() -> None:
    """The id is 40 bits of the hash: who finds another code with them has nothing."""
    desk = Desk()
    code = await desk.one()
    item = await desk.shelf.get(f"v:{code.id}")
    assert item is not None
    await desk.shelf.swap(item.id, item.rev, {**item.value, "hash": "0" * 64})
    assert await desk.redeem("a", code) == "invalid"


async def test_a_typing_error_is_told_asks_nobody_and_does_not_count() -> None:
    desk = Desk()
    code = await desk.one()
    before = dict(desk.shelf.docs)
    text = code.text.reveal()
    wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
    for typed in [wrong] * 50 + ["", "x", "🂡" * 28, text + "0"]:
        with pytest.raises(CodeRefused) as refused:
            await desk.backend.redeem("a", Secret(typed))
        assert refused.value.code == "mistyped"
    assert desk.shelf.docs == before


async def test_guessing_is_slowed_down_and_ends() -> None:
    desk = Desk()
    unknown, good = await Desk().one(), await desk.one()
    answers = [await desk.redeem("a", unknown) for _ in range(12)]
    assert answers == ["invalid"] * 10 + ["throttled"] * 2
    assert await desk.redeem("a", good) == "throttled"
    assert await desk.redeem("b", good) == Redeemed(payment=good.id, amount=FIVE)
    desk.clock.advance(60)
    assert await desk.redeem("a", unknown) == "invalid"


async def test_good_codes_do_not_count() -> None:
    desk = Desk()
    _, codes = await desk.backend.make(FIVE, 30, "ops")
    assert [await desk.redeem("a", code) for code in codes] == [Redeemed(payment=code.id, amount=FIVE) for code in codes]


async def test_settings_set_the_pace() -> None:
    desk = Desk(attempts=1, attempts_every=0.5)
    unknown = await Desk().one()
    assert [await desk.redeem("a", unknown) for _ in range(2)] == ["invalid", "throttled"]
    desk.clock.advance(0.5)
    assert await desk.redeem("a", unknown) == "invalid"


@pytest.mark.parametrize("given", [{"attempts": 0}, {"attempts_every": 0}, {"total_every": float("nan")}, {"secret": "x"}])
def test_settings_that_are_wrong(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VouchersSettings(**given)


# --- answers that do not come -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["get", "put", "swap"])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("skip", range(4))
async def test_a_redemption_cut_anywhere_is_finished_by_the_same_account_alone(call: Any, done: bool, skip: int) -> None:
    """Every call to the shelf of one redemption, lost with and without its effect; then the same again."""
    desk = Desk()
    code = await desk.one()
    calls = itertools.count()
    real = getattr(desk.shelf, call)

    async def cut(*args: Any) -> Any:
        if next(calls) == skip:
            desk.shelf.lose(call, done=done)
        return await real(*args)

    setattr(desk.shelf, call, cut)
    try:
        await desk.backend.redeem("a", code.text)
    except StoreUnavailable:
        pass
    delattr(desk.shelf, call)
    claimed = (await desk.kept(code)).redeemed is not None
    assert await desk.redeem("b", code) == ("invalid" if claimed else Redeemed(payment=code.id, amount=FIVE))
    again = await desk.redeem("a", code)
    assert again == (Redeemed(payment=code.id, amount=FIVE) if claimed else "invalid")


async def test_a_batch_whose_answers_are_lost_is_not_given_out() -> None:
    desk = Desk()
    desk.shelf.lose("put", done=True)
    with pytest.raises(StoreUnavailable):
        await desk.backend.make(FIVE, 3, "ops")

    async def made() -> set[str]:
        return {name.partition("-")[0] async for name, _ in vouchers(desk.shelf)}

    assert not await made()
    puts = 0
    real = desk.shelf.put

    async def cut(*args: Any) -> bool:
        nonlocal puts
        puts += 1
        if puts == 100:
            desk.shelf.lose("put", done=True)
        return await real(*args)

    desk.shelf.put = cut  # type: ignore[method-assign]
    with pytest.raises(Unfinished) as unfinished:
        await desk.backend.make(FIVE, 200, "ops")
    assert await made() == {unfinished.value.batch}
    done = await desk.backend.revoke(unfinished.value.batch, "ops", "unfinished")
    assert done is not None
    assert len(done.ids) >= 64


# --- revocation -------------------------------------------------------------------------------------------------------


async def test_a_batch_is_revoked_but_for_what_is_redeemed() -> None:
    desk = Desk()
    batch, codes = await desk.backend.make(FIVE, 70, "ops")
    await desk.redeem("a", codes[0])
    told: list[tuple[int, int]] = []
    done = await desk.backend.revoke(batch, "eve", "the list was lost", told=lambda done, of: told.append((done, of)))
    assert done == Revoked(tuple(sorted(code.id for code in codes[1:])), 1, 0, 0)
    assert told == [(64, 70), (70, 70)]
    assert (await desk.kept(codes[1])).revoked == Revocation("eve", desk.clock.wall_ms(), "the list was lost")
    assert await desk.backend.revoke(batch, "bob", "again") == Revoked((), 1, 69, 0)
    assert (await desk.kept(codes[1])).revoked == Revocation("eve", desk.clock.wall_ms(), "the list was lost")
    assert isinstance(await desk.redeem("a", codes[0]), Redeemed)
    assert await desk.redeem("a", codes[1]) == "invalid"


async def test_one_code_is_revoked() -> None:
    desk = Desk()
    _, (first, second) = await desk.backend.make(FIVE, 2, "ops")
    assert await desk.backend.revoke(first.id, "ops", "stolen") == Revoked((first.id,), 0, 0, 0)
    assert await desk.redeem("a", first) == "invalid"
    assert isinstance(await desk.redeem("a", second), Redeemed)
    assert await desk.backend.revoke(second.id, "ops", "stolen") == Revoked((), 1, 0, 0)
    assert await desk.backend.revoke("0000", "ops", "x") is None
    assert await desk.backend.revoke("0000-00000000", "ops", "x") is None


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_a_code_claimed_and_revoked_at_once_is_one_of_them() -> None:
    for _ in range(30):
        desk = Desk()
        code = await desk.one()
        redeemed, revoked = await asyncio.gather(desk.redeem("a", code), desk.backend.revoke(code.id, "ops", "lost"))
        assert revoked is not None
        assert isinstance(redeemed, Redeemed) == (revoked.redeemed == 1) == (revoked.ids == ())


class OneCode(RuleBasedStateMachine):
    """One code, three accounts, an operator, a clock, and answers that get lost: at most one account is ever told yes."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run
        self.yes: set[str] = set()

    @initialize(expires=st.sampled_from([None, 5_000]))
    def make(self, expires: int | None) -> None:
        self.desk = Desk(attempts=1000, total_attempts=100_000)
        until = None if expires is None else self.desk.clock.wall_ms() + expires
        self.code = self.run(self.desk.one(expires_ms=until))

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.run(work)
        except StoreUnavailable:
            return None

    @rule(account=st.sampled_from("abc"), lose=st.sampled_from([None, "get", "put", "swap"]), done=st.booleans())
    def redeem(self, account: str, lose: Any, done: bool) -> None:
        if lose:
            self.desk.shelf.lose(lose, done=done)
        answer = self.do(self.desk.redeem(account, self.code))
        if isinstance(answer, Redeemed):
            assert answer == Redeemed(payment=self.code.id, amount=FIVE)
            self.yes.add(account)
        elif answer == "invalid":
            assert account not in self.yes

    @rule(lose=st.booleans(), done=st.booleans())
    def revoke(self, lose: bool, done: bool) -> None:
        if lose:
            self.desk.shelf.lose("swap", done=done)
        self.do(self.desk.backend.revoke(self.code.id, "ops", "lost"))

    @rule(seconds=st.sampled_from([1, 3, 60]))
    def wait(self, seconds: int) -> None:
        self.desk.clock.advance(seconds)

    @invariant()
    def one_owner(self) -> None:
        if not hasattr(self, "code"):
            return
        _, body = self.desk.shelf.docs[f"v:{self.code.id}"]
        kept = msgspec.json.decode(body, type=Voucher)
        assert len(self.yes) <= 1
        assert kept.redeemed is None or kept.revoked is None
        assert not self.yes or (kept.redeemed is not None and {kept.redeemed.account} == self.yes)


def test_a_code_has_one_owner_whatever_is_lost() -> None:
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            lambda: OneCode(runner.run),
            settings=settings(max_examples=150, stateful_step_count=25, deadline=None, database=None),
        )
