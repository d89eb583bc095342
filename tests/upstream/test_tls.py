"""TLS is verified, and nothing turns that off.

The certificates (tls/, made with openssl, good until 2126) are these tests' own: `upstream.pem`, with its key, is for
127.0.0.1 and signed by `authority.pem`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aurixel.testing.scripted import ScriptedUpstream, send
from aurixel.upstream import Upstream
from tests.upstream.client import Counted, fails, fetch, post

TLS = Path(__file__).parent / "tls"


@pytest.fixture
async def secure() -> AsyncIterator[ScriptedUpstream]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "upstream.pem")
    async with ScriptedUpstream(tls=tls) as server:
        server.reply(body=b"secret")
        yield server


@pytest.fixture
async def trusting(counted: Counted) -> AsyncIterator[Upstream]:
    client = Upstream(ca_file=str(TLS / "authority.pem"), metrics=counted)
    yield client
    await client.close()


async def test_a_stranger_is_refused(secure: ScriptedUpstream, upstream: Upstream) -> None:
    assert await fails(upstream, post(secure.url)) == ("upstream_unreachable", b"")
    assert secure.requests == []


async def test_a_known_authority_is_trusted(secure: ScriptedUpstream, trusting: Upstream, counted: Counted) -> None:
    for _ in range(2):
        assert await fetch(trusting, post(secure.url)) == (200, [b"secret"])
    assert counted.told == ["opened", "first_byte", "reused", "first_byte"]


async def test_another_name_is_refused(secure: ScriptedUpstream, trusting: Upstream) -> None:
    assert await fails(trusting, post(secure.url.replace("127.0.0.1", "localhost"))) == ("upstream_unreachable", b"")
    assert secure.requests == []


async def test_the_systems_authorities_stay_trusted(trusting: Upstream, upstream: Upstream) -> None:
    own = {str(cert) for cert in ssl.create_default_context().get_ca_certs()}
    context = trusting.pooled.connector._ssl  # type: ignore[union-attr]
    assert isinstance(context, ssl.SSLContext)
    assert own < {str(cert) for cert in context.get_ca_certs()}
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_plain_http_behind_https(scripted_upstream: ScriptedUpstream, trusting: Upstream) -> None:
    scripted_upstream.greet(send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    url = scripted_upstream.url.replace("http:", "https:")
    assert await fails(trusting, post(url)) == ("upstream_unreachable", b"")
