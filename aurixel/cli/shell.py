"""What every command shares: the two options, the settings, the store, and one way to print results and errors."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TextIO, TypeVar

import click

from aurixel.errors import AurixelError, ConfigError, ConfigFaults, RequestError, StoreDamaged, StoreUnavailable
from aurixel.params import Instant, Usd, instant
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.config import Settings
    from aurixel.plugin import CodeRefused
    from aurixel.storage import Store

__all__ = [
    "CONFIG_FILE",
    "DEV_FILE",
    "SHARED",
    "Instant",
    "Shell",
    "Usd",
    "absent_places",
    "at_terminal",
    "instant",
    "many",
    "placing",
    "report",
    "shared",
    "store_exists",
    "table",
    "usd",
]

P = ParamSpec("P")
T = TypeVar("T")

CONFIG_FILE: Final = Path("conf/aurixel.toml")
DEV_FILE: Final = Path("var/dev/aurixel.toml")

# The two options of every command: their names, and the rest.
SHARED: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (
        ("--config",),
        {
            "type": click.Path(path_type=Path),
            "envvar": "AURIXEL_CONFIG",
            "help": "The configuration file. [default: conf/aurixel.toml]",
        },
    ),
    (("--json", "as_json"), {"is_flag": True, "help": "Print JSON: results on stdout, errors on stderr."}),
)


class Shell:
    """One run of one command: where its settings are, and how it talks."""

    def __init__(self, config: Path | None, as_json: bool) -> None:
        self.config, self.json = config, as_json

    def settings(self, *needs: str) -> Settings:
        """The configuration, or `ConfigError`; `needs`: the sections whose secrets must be there (none named: all)."""
        from aurixel.config import load

        return load(self.file(), needs=needs or None)

    def judged(self) -> tuple[Settings | None, list[ConfigError]]:
        """The configuration as far as it can be read, and everything that forbids to serve with it, each thing once."""
        from aurixel.config import load, serve_faults

        faults: list[ConfigError] = []
        file = self.file()
        try:
            settings = load(file)
        except ConfigFaults as found:
            faults += found.faults
            try:
                settings = load(file, needs=())
            except ConfigFaults:
                return None, faults
        told = absent_places(faults)
        return settings, [*faults, *(fault for fault in serve_faults(settings) if fault.place not in told)]

    def file(self) -> Path:
        """The configuration file; `ConfigError("config_missing")` if there is none to read."""
        if self.config is not None:
            return self.config
        if CONFIG_FILE.exists():
            return CONFIG_FILE
        mend = "name one with --config or AURIXEL_CONFIG"
        if DEV_FILE.exists():
            mend += f"; the gateway that `aurixel dev` runs has --config {DEV_FILE}"
        raise ConfigError("there is no configuration file", place=str(CONFIG_FILE), mend=mend, code="config_missing")

    @asynccontextmanager
    async def store(self, settings: Settings, *, make: bool = False) -> AsyncIterator[Store]:
        """The store, open; one that is not there is made only by who says `make`.

        `ConfigError`: `store_missing`, `store_unavailable`, `store_damaged`, with the store named.
        """
        from aurixel.storage import open_store

        if not make and not store_exists(settings):
            mend = "`aurixel serve` or `aurixel account create` makes it; is this the right configuration and folder?"
            if DEV_FILE.exists():
                mend += f" That of `aurixel dev` is found with --config {DEV_FILE}"
            fault = f"there is no store at {settings.store.shown} yet"
            raise ConfigError(fault, place=settings.place("store", "url"), mend=mend, code="store_missing")
        with placing(settings):
            store = open_store(settings.store.url.reveal())
            await store.open()
            try:
                yield store
            finally:
                await store.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a command's asynchronous part."""
        return asyncio.run(work)

    def show(self, value: object, text: str) -> None:
        """The result, on stdout: `value` as JSON with `--json`, else `text`; as `need_stdout`."""
        self.need_stdout()
        click.echo(json.dumps(value, indent=2, ensure_ascii=False) if self.json else text)

    def need_stdout(self) -> None:
        """`click.ClickException` where stdout is closed: what nobody can be told is no success."""
        if sys.stdout is None:
            raise click.ClickException("stdout is closed")

    @contextmanager
    def bar(self, label: str, length: int) -> Iterator[Callable[[int, str], None]]:
        """A progress bar on a terminal's stderr, else nothing; it is told how much is done, and a word beside it."""
        if self.json or not at_terminal(sys.stderr):
            yield lambda done, word: None
            return
        words = ""

        def word(_: int | None) -> str:
            return words

        with click.progressbar(length=length, label=label, file=sys.stderr, item_show_func=word) as shown:

            def tell(done: int, word: str) -> None:
                nonlocal words
                words = word
                shown.update(done - shown.pos)
                shown.render_progress()

            yield tell

    def ask(self, question: str) -> bool:
        """What the person at the terminal says; `click.UsageError` where nobody says anything."""
        try:
            return click.confirm(question, err=True)
        except click.Abort:  # Ctrl-C, or the end of what was piped in
            if at_terminal(sys.stdin):
                raise
            click.echo(err=True)
            raise click.UsageError("nobody is here to be asked: say --yes") from None

    def note(self, text: str) -> None:
        """A word to the person at the terminal, on stderr; none with `--json`."""
        if not self.json:
            click.echo(text, err=True)


def shared(command: Callable[Concatenate[Shell, P], T]) -> Callable[P, T]:
    """Gives a command `--config` and `--json`, and its first argument: a `Shell`."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        config, as_json = kwargs.pop("config"), kwargs.pop("as_json")
        return command(Shell(config, as_json), *args, **kwargs)  # type: ignore[arg-type]

    for names, how in reversed(SHARED):
        wrapped = click.option(*names, **how)(wrapped)
    return wrapped


def at_terminal(stream: TextIO | None) -> bool:
    """Whether somebody is at the other end; None is a stream that was closed before the start."""
    return stream is not None and stream.isatty()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns for people; all but the first are set to the right where they hold numbers."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    right = [bool(rows) and all(re.fullmatch(r"-?[\d.]+", row[column]) for row in rows) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in (head, *rows))


def absent_places(faults: Iterable[ConfigError]) -> frozenset[str]:
    """Where values are missing from the environment: what else is wrong there follows from that."""
    return frozenset(fault.place for fault in faults if fault.code == "env_missing")


def many(count: int, word: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def store_exists(settings: Settings) -> bool:
    """Whether opening the store would find one: an embedded one that is not there would be made."""
    from aurixel.config.safety import SQLITE

    url = settings.store.url.reveal()
    return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).exists()


async def count_accounts(store: Store) -> int:
    """How many accounts there are, for a bar."""
    from aurixel.storage import accounts_of

    count = 0
    async for _ in accounts_of(store):
        count += 1
    return count


@contextmanager
def placing(settings: Settings) -> Iterator[None]:
    """Faults that name a setting get its file and line; `StoreUnavailable` becomes one, with the store and the reason named."""
    try:
        yield
    except ConfigError as error:
        raise settings.located(error) from error
    except StoreUnavailable as error:
        fault, mend, code = f"gives no answer: {error}", "is it running? try again", "store_unavailable"
        if isinstance(error, StoreDamaged):
            fault, mend, code = f"is damaged ({error})", "restore it from a backup", "store_damaged"
        fault = f"the store {settings.store.shown} {fault}"
        raise ConfigError(fault, place=settings.place("store", "url"), mend=mend, code=code) from error


# --- how it is written ------------------------------------------------------------------------------------------------


def usd(values: Mapping[str, Any], *amounts: str) -> dict[str, Any]:
    """A copy with the named nano-dollars as exact decimal strings in USD."""
    return {name: format_usd(value) if name in amounts else value for name, value in values.items()}


# --- errors -----------------------------------------------------------------------------------------------------------


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell an error on stderr and return the exit code; what is nobody's fault but ours is raised on."""
    from aurixel.accounts import AccountRefused
    from aurixel.plugin import CodeRefused

    faults: tuple[ConfigError, ...] = ()
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            exit_code, code, text = 130, "interrupted", "interrupted"
        case click.exceptions.NoArgsIsHelpError() if not as_json:  # its message is the whole help
            error.show()
            return 2
        case click.UsageError():
            exit_code, code, text = 2, "usage", _usage(error, with_hint=not as_json)
        case click.ClickException():
            exit_code, code, text = 1, "failed", error.format_message()
        case AccountRefused():
            exit_code, code, text = 2 if error.typed else 1, error.code, error.message
            if code == "account_unknown" and DEV_FILE.exists() and not as_json:
                text += f"\n  accounts of `aurixel dev` are found with --config {DEV_FILE}"
        case ConfigFaults():
            exit_code, code, text, faults = 1, error.code, str(error), error.faults
        case ConfigError():
            exit_code, code, text, faults = 1, error.code, str(error), (error,)
        case StoreUnavailable():
            exit_code, code, text = 1, "store_unavailable", "the store gives no answer; try again"
        case CodeRefused():
            exit_code, code, text = (2 if error.code == "mistyped" else 1), f"code_{error.code}", _code_refused(error)
        case RequestError():
            exit_code, code, text = 1, error.code, error.message
        case AurixelError():
            exit_code, code, text = 2 if getattr(error, "typed", False) else 1, getattr(error, "code", "failed"), str(error)
        case UnicodeEncodeError() if _undecoded(error):
            exit_code, code, text = 2, "usage", f"what was typed is not UTF-8: {error.object!a}"
        case _:
            if "AURIXEL_DEBUG" not in os.environ and isinstance(error, OSError) and error.strerror:
                exit_code, code, text = 1, "system", f"{error.filename or ''}: {error.strerror}".lstrip(": ")
            else:
                raise error
    if as_json:
        body: dict[str, Any] = {"code": code, "message": text}
        if faults:
            body["faults"] = [_fault(fault) for fault in faults]
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    else:
        many = len(faults) > 1
        click.echo(f"{len(faults)} faults:\n{text}" if many else f"error: {text}", err=True)
    return exit_code


def _code_refused(error: CodeRefused) -> str:
    if error.code == "throttled":
        wait = math.ceil(error.retry_after or 1)
        return f"too many codes were wrong lately: try again in {many(wait, 'second')}"
    if error.code == "mistyped":
        return "that is no code: a typing error"
    return "the code is not valid: it is unknown, used, revoked or expired"


def _undecoded(error: UnicodeEncodeError) -> bool:
    """Whether it is of bytes that Python could not decode as it read the command line."""
    return "\udc80" <= error.object[error.start] <= "\udcff"


def _usage(error: click.UsageError, *, with_hint: bool) -> str:
    text = error.format_message()
    if with_hint and error.ctx is not None:
        text += f"\n{error.ctx.get_usage()}\n`{error.ctx.command_path} --help` says more."
    return text


def _fault(fault: ConfigError) -> dict[str, str]:
    return {"code": fault.code, "message": fault.message, "place": fault.place, "mend": fault.mend}
