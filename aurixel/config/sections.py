"""The shape of aurixel.toml: one frozen model a section, each key with its default. docs/configuration.md is its manual.

Nothing here reads a file or the environment. An unknown key is an error everywhere; the blocks that belong to plugins
keep what is not the host's own in `settings`, for the plugin's model to judge.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import KeyPath, TomlFile
from aurixel.values import NANOS_PER_CENT, Nanos, Secret, parse_usd

if TYPE_CHECKING:
    from aurixel.payments import OrderRules, ReceiptRules

PREFIX: Final = "AURIXEL_"
_SIZE: Final = re.compile(r"(\d{1,12}) ?(|B|KiB|MiB|GiB)", re.ASCII)
_UNITS: Final = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")
# How the rooms name a block, and a setting in it.
_BLOCK_PLACE: Final = re.compile(r"\[(\w+)\.([^\]]+)\](?: (\S+))?")
_RATE: Final = re.compile(r"(?!0+(\.0+)?$)\d{1,2}(\.\d{1,4})?", re.ASCII)
# Names of blocks go into metrics, records and the names of environment variables.
BLOCK_NAME: Final = re.compile(r"[a-z][a-z0-9-]*(_[a-z0-9-]+)*")


def _secret(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, str):
        return Secret(value)
    raise ValueError("must be a string")


def _size(value: Any) -> Any:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value)
        if not found:
            raise ValueError('must be bytes, or a size such as "64 MiB"')
        return int(found[1]) * _UNITS[found[2]]
    return value


def _list(value: Any) -> Any:
    """From the environment lists come as text: names with commas between."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _address(value: Any) -> Any:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found["port"]) > 65535:
        raise ValueError('must be an address and a port, such as "127.0.0.1:8700"')
    return Address(host=found["host"].strip("[]"), port=int(found["port"]))


def _usd(value: Any) -> Nanos:
    if not isinstance(value, str):
        raise ValueError('must be an amount of USD in quotes, such as "1.00"')
    nanos = parse_usd(value)
    if nanos <= 0:
        raise ValueError("must be above zero")
    return nanos


SecretText = Annotated[Secret, PlainValidator(_secret)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Usd = Annotated[Nanos, PlainValidator(_usd)]


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


class Address(Section):
    """Where to listen; port 0 takes any free one. Written `host:port`, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


AddressText = Annotated[Address, BeforeValidator(_address)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Server(Section):
    """`[server]`: where it listens, and how much of everything a client may use. Sizes in bytes, times in seconds."""

    listen: AddressText = Address(host="127.0.0.1", port=8700)
    ops_listen: AddressText = Address(host="127.0.0.1", port=9700)
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    public_url: str = ""
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_list)] = ()
    max_header: Bytes = 32 * 1024
    max_body: Bytes = 64 * 1024**2
    max_connections: Annotated[int, Field(gt=0)] = 10_000
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 120.0
    idle_timeout: Seconds = 75.0
    stall_timeout: Seconds = 60.0
    drain_deadline: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0


class Security(Section):
    """`[security]`: what keys the hashes, and what the operator says yes to although it is unsafe by default."""

    secret: SecretText = Secret("")
    allow_demo: bool = False
    allow_plain_http: bool = False
    allow_public_ops: bool = False


class StoreSection(Section):
    """`[store]`. The URL may hold a password, so it is a secret; `shown` is what may be printed of it."""

    url: SecretText = Secret("sqlite:///var/aurixel.db")

    @property
    def shown(self) -> str:
        """The URL without its user and password."""
        url = self.url.reveal()
        scheme, _, rest = url.partition("://")
        return url if scheme == "sqlite" else f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


class CatalogueSection(Section):
    """`[catalogue]`: the files that fill the store, relative to the configuration file; `poll`: how often nodes look."""

    models: Path = Path("models.toml")
    prices: Path = Path("prices.toml")
    poll: Seconds = 1.0


class Timing(Section):
    """`[ledger.timing]`: how nodes on one store find out who is alive, in seconds (docs/ledger.md 5). All must share it."""

    beat: Seconds = 5.0
    admit_within: Seconds = 75.0
    dead_after: Seconds = 120.0
    reclaim_after: Seconds = 60.0
    sweep: Seconds = 60.0

    @model_validator(mode="after")
    def _safe(self) -> Timing:
        if self.admit_within < 3 * self.beat:
            raise ValueError("admit_within must be at least 3 times beat: one beat that gets no answer is no outage")
        if self.dead_after < 1.5 * self.admit_within:
            raise ValueError("dead_after must be at least 1.5 times admit_within: a node called dead must have stopped by then")
        return self


class LedgerSection(Section):
    """`[ledger]`: the journal's folder, how durable it is and how long a file; what a node leases at once (USD); what becomes
    of an upstream whose client has left, and for how many seconds at most; overrides of the settlement matrix."""

    journal: Path = Path("var/journal")
    fsync: Literal["batch", "always", "off"] = "batch"
    fsync_interval: Seconds = 0.05
    segment: Annotated[Bytes, Field(ge=4096)] = 16 * 1024**2
    lease_target: Usd = 1_000_000_000
    timing: Timing = Timing()
    client_gone: Literal["close", "drain"] = "close"
    drain_cap: Seconds = 60.0
    settlement: dict[str, Any] = {}


class OutageSection(Section):
    """`[outage]`: how long and how far requests go on while the store gives no answer; seconds, and an amount of USD."""

    admit_for: Annotated[float, Field(ge=15, le=75)] = 75.0
    believe_keys_for: Annotated[float, Field(ge=0, le=75)] = 75.0
    unposted_limit: Usd = 100_000_000_000


class OrdersSection(Section):
    """`[orders]`: what a top-up may be (USD, whole cents), and where payers go afterwards: a path on public_url, or a URL."""

    min: Usd = 5_000_000_000
    max: Usd = 1_000_000_000_000
    currency: Literal["usd"] = "usd"
    success: str = "/"
    cancel: str = "/"

    @field_validator("min", "max")
    @classmethod
    def _cents(cls, nanos: Nanos) -> Nanos:
        if nanos % NANOS_PER_CENT:
            raise ValueError("must be whole cents")
        return nanos

    @field_validator("success", "cancel")
    @classmethod
    def _page(cls, page: str) -> str:
        if not page.isprintable() or not page.isascii() or " " in page or not page.startswith(("/", "https://", "http://")):
            raise ValueError('must be a path such as "/paid", or a URL')
        return page

    @model_validator(mode="after")
    def _ordered(self) -> OrdersSection:
        if self.max < self.min:
            raise ValueError("max must be at least min")
        return self


class ReceiptsSection(Section):
    """`[receipts]`: whose they are, and the tax (percent) that is contained in the amounts."""

    name: str = ""
    details: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    tax_name: str = ""
    tax_rate: str = ""

    @field_validator("tax_rate")
    @classmethod
    def _rate(cls, rate: str) -> str:
        if rate and not _RATE.fullmatch(rate):
            raise ValueError('must be percent in quotes, above zero and below 100, such as "19" or "7.7"')
        return rate

    @model_validator(mode="after")
    def _both(self) -> ReceiptsSection:
        if bool(self.tax_name) != bool(self.tax_rate):
            raise ValueError("tax_name and tax_rate must be set together")
        return self


class PluginsSection(Section):
    """`[plugins]`: only what is named is loaded."""

    enabled: Annotated[tuple[str, ...], BeforeValidator(_list)] = ("openai", "anthropic", "limits")


class LoggingSection(Section):
    """`[logging]`: JSON lines for machines, text for people."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class PluginBlock(Section):
    """A block whose own keys are the fields of this model and whose other keys are the plugin's, in `settings`."""

    settings: dict[str, Any] = Field(default={}, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError("must be a table")
        own = cls.model_fields.keys() - {"settings"}
        return {
            **{key: value for key, value in values.items() if key in own},
            "settings": {key: value for key, value in values.items() if key not in own},
        }


class UpstreamBlock(PluginBlock):
    """`[upstreams.NAME]`: which provider, its deadlines in seconds, and the provider's own settings."""

    provider: str
    connect_timeout: Seconds = 5.0
    first_byte_timeout: Seconds = 120.0
    idle_timeout: Seconds = 120.0
    total_timeout: Seconds = 900.0


class PolicyBlock(PluginBlock):
    """`[policy.NAME]`: what an error of the check means, how long it may take, and the check's own settings."""

    on_error: Literal["deny", "allow"] = "deny"
    deadline: Seconds = 1.0


class PaymentBlock(PluginBlock):
    """`[payments.NAME]`: how long a call of the billing backend NAME may take, and the backend's own settings."""

    deadline: Seconds = 20.0


def _named(blocks: dict[str, Any]) -> dict[str, Any]:
    for name in blocks:
        if not BLOCK_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a name here: lower-case letters, digits, - and single _ only")
    return blocks


class Settings(BaseSettings):
    """The whole configuration, validated. Made by `aurixel.config.load` alone, which merges the file and the overrides."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    server: Server = Server()
    security: Security = Security()
    store: StoreSection = StoreSection()
    catalogue: CatalogueSection = CatalogueSection()
    ledger: LedgerSection = LedgerSection()
    outage: OutageSection = OutageSection()
    plugins: PluginsSection = PluginsSection()
    policy: Annotated[dict[str, PolicyBlock], BeforeValidator(_named)] = {}
    upstreams: Annotated[dict[str, UpstreamBlock], BeforeValidator(_named)] = {}
    payments: Annotated[dict[str, PaymentBlock], BeforeValidator(_named)] = {}
    orders: OrdersSection = OrdersSection()
    receipts: ReceiptsSection = ReceiptsSection()
    logging: LoggingSection = LoggingSection()

    _file: TomlFile | None = None

    @property
    def file(self) -> TomlFile | None:
        """What was read; None where there was no file."""
        return self._file

    @property
    def catalogue_files(self) -> tuple[Path, Path]:
        """models.toml and prices.toml, found from the folder of the configuration file."""
        folder = Path(self._file.name).parent if self._file is not None else Path()
        return folder / self.catalogue.models, folder / self.catalogue.prices

    @property
    def order_rules(self) -> OrderRules:
        """What orders may be, as the payments room knows it."""
        from aurixel.payments import OrderRules

        orders = self.orders
        return OrderRules(
            least=orders.min,
            most=orders.max,
            currency=orders.currency,
            public_url=self.server.public_url,
            success=orders.success,
            cancel=orders.cancel,
        )

    @property
    def receipt_rules(self) -> ReceiptRules:
        """What is printed on receipts, as the payments room knows it."""
        from aurixel.payments import ReceiptRules

        receipts = self.receipts
        return ReceiptRules(
            name=receipts.name, details=receipts.details, tax_name=receipts.tax_name, tax_rate=receipts.tax_rate
        )

    def place(self, *path: str) -> str:
        """Where a setting was written: `file:line`, the name of the override, or just the setting's own name."""
        return place_of(self._file, path)

    def located(self, error: ConfigError) -> ConfigError:
        """A fault whose place is the name of a setting or block, as rooms name it that know no file, with file and line."""
        if isinstance(error, ConfigFaults):
            return ConfigFaults([self.located(fault) for fault in error.faults])
        found = _BLOCK_PLACE.fullmatch(error.place)
        path = tuple(part for part in found.groups() if part) if found else tuple(error.place.split("."))
        if path[0] not in type(self).model_fields:
            return error
        return ConfigError(error.message, place=self.place(*path), mend=error.mend, code=error.code)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has merged: nothing slips in from elsewhere."""
        return (init_settings,)


def override_name(path: KeyPath) -> str:
    """The environment variable that overrides a setting."""
    return PREFIX + "__".join(str(part) for part in path).upper()


def place_of(file: TomlFile | None, path: KeyPath) -> str:
    """Where a setting was written; see `Settings.place`."""
    dotted = ".".join(str(part) for part in path)
    for length in range(len(path), 1, -1):
        variable = override_name(path[:length])
        if any(name.upper() == variable for name in os.environ):
            return f"the environment's {variable}"
    if file is not None:
        return f"{file.place(path)} ({dotted})" if dotted else file.name
    return dotted


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
