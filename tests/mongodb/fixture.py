"""A MongoDB for the tests: AURIXEL_TEST_MONGODB (a URI), or a `mongod` on PATH, or mongo-java-server by JDK and Maven.

The first there is. mongo-java-server keeps the semantics our store relies on (measured: atomic updates, unique indexes,
`$expr`, bulk upserts), and lacks sessions, transactions, pipeline updates and `explain`: a test that needs a real server
must ask for one (`mongodb_kind`). It never listens elsewhere than on loopback.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo
import pymongo.errors
import pytest

from tests.harness.once import once
from tests.harness.process import Server
from tests.harness.require import require

HERE = Path(__file__).parent
MISSING = "set AURIXEL_TEST_MONGODB to a URI, or have `mongod`, or `java` (a JDK, 17 or later) and `mvn`, on PATH"


def _jars(folder: Path) -> None:
    command = ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def java_server(store: Path | None = None, port: int = 0) -> tuple[Server, str]:
    """Start mongo-java-server: the process, a context manager, and its URL. With `store`, a file, it survives `kill()`."""
    jars = once(Path(sys.prefix, "mongo-java-server"), [HERE / "pom.xml"], _jars)
    flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"]
    command = ["java", *flags, "-cp", f"{jars}/*", str(HERE / "Launcher.java"), str(port)]
    server = Server(command if store is None else [*command, str(store)])
    try:
        return server, f"mongodb://127.0.0.1:{server.line(60)}"
    except BaseException:
        server.stop()
        raise


def _mongod(folder: Path) -> tuple[Server, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(
        ["mongod", "--dbpath", str(folder), "--bind_ip", "127.0.0.1", "--port", str(port), "--logpath", "/dev/null"]
    )
    url = f"mongodb://127.0.0.1:{port}"
    try:
        with pymongo.MongoClient(url, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")
    except BaseException:
        server.stop()
        raise
    return server, url


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[str]:
    if kind == "uri":
        yield os.environ["AURIXEL_TEST_MONGODB"]
        return
    server, url = java_server() if kind == "java" else _mongod(folder)
    with server:
        yield url


@pytest.fixture(scope="session")
def mongodb_kind() -> str:
    """`uri`, `mongod` or `java`: what the tests will run against, or a skip that says what is missing."""
    kind = None
    if os.environ.get("AURIXEL_TEST_MONGODB"):
        kind = "uri"
    elif shutil.which("mongod"):
        kind = "mongod"
    elif shutil.which("javac") and shutil.which("mvn"):
        kind = "java"
    return require(kind, "mongodb", MISSING)


@pytest.fixture(scope="session")
def mongodb_url(mongodb_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's URL, without a database: `mongodb://127.0.0.1:PORT`."""
    with _server(mongodb_kind, tmp_path_factory.mktemp("mongod")) as url:
        yield url


@pytest.fixture
def mongodb_database(mongodb_url: str) -> Iterator[str]:
    """The URL of an empty database of this test's own; it is dropped when the test is over."""
    name = f"aurixel_test_{uuid.uuid4().hex[:12]}"
    base, mark, options = mongodb_url.partition("?")
    yield f"{base.rstrip('/')}/{name}{mark}{options}"
    with pymongo.MongoClient(mongodb_url, serverSelectionTimeoutMS=5_000) as client:
        client.drop_database(name)
