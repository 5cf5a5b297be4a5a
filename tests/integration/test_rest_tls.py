"""What stands before the port: TLS with a certificate of one's own, and proxies that are believed or not."""

from __future__ import annotations

import asyncio
import datetime as dt
import http.client
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.main import Front, RestServer
from domain.errors.configuration import ConfigurationError
from tests.conclave_fixture import open_stub_conclave

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Front:
    """A certificate for loopback that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    return Front(*write_certificate(folder))


def write_certificate(folder: Path, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "conclave")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return cert_file, key_file


@asynccontextmanager
async def served(front: Front) -> AsyncIterator[tuple[str, int]]:
    """A server behind `front` on a free port; its address and port."""
    async with open_stub_conclave() as conclave:
        server = RestServer(conclave, port=0, drain_s=0.2, hang_up_s=1, front=front)
        listening = asyncio.Event()
        running = asyncio.create_task(server.run(on_listening=lambda _urls: listening.set()))
        await listening.wait()
        (url,) = server.urls
        try:
            yield url, int(url.rpartition(":")[2])
        finally:
            server.stop()
            await running


def get(port: int, path: str, *, trusting: Front | None = None, headers: Mapping[str, str] = {}) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if trusting is None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    else:
        context = ssl.create_default_context(cafile=trusting.tls_cert_file)
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=10, context=context)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def test_a_caller_who_trusts_the_certificate_is_answered_over_tls(certificate: Front) -> None:
    async with served(certificate) as (url, port):
        assert url.startswith("https://")
        status, body = await asyncio.to_thread(get, port, "/healthz", trusting=certificate)
        assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_the_room_is_sent_whole_over_tls(certificate: Front) -> None:
    async with served(certificate) as (_, port):
        status, body = await asyncio.to_thread(get, port, "/openapi.json", trusting=certificate)
        assert status == 200
        assert "/v1/deliberations" in json.loads(body)["paths"]


async def test_without_tls_nothing_is_said_on_a_port_that_speaks_it(certificate: Front) -> None:
    def ask(port: int) -> bytes:
        with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                return connection.recv(65536)
            except ConnectionResetError:
                return b""

    async with served(certificate) as (_, port):
        assert b"HTTP" not in await asyncio.to_thread(ask, port)
        assert (await asyncio.to_thread(get, port, "/healthz", trusting=certificate))[0] == 200


async def test_a_certificate_or_key_that_cannot_be_used_is_named(certificate: Front, tmp_path: Path) -> None:
    assert certificate.tls_cert_file is not None
    assert certificate.tls_key_file is not None
    other, encrypted = tmp_path / "other", tmp_path / "encrypted"
    other.mkdir()
    encrypted.mkdir()
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    foreign_key = write_certificate(other)[1]
    locked = write_certificate(encrypted, passphrase=b"a passphrase")
    cases = {
        (tmp_path / "missing.pem", certificate.tls_key_file): "CONCLAVE_TLS_CERT_FILE",
        (certificate.tls_cert_file, tmp_path): "CONCLAVE_TLS_KEY_FILE",
        (garbage, certificate.tls_key_file): "CONCLAVE_TLS_CERT_FILE",
        (certificate.tls_cert_file, foreign_key): "CONCLAVE_TLS_CERT_FILE",
        locked: "CONCLAVE_TLS_KEY_FILE",
    }
    async with open_stub_conclave() as conclave:
        for (cert_file, key_file), variable in cases.items():
            with pytest.raises(ConfigurationError) as caught:
                RestServer(conclave, port=0, front=Front(cert_file, key_file))
            assert caught.value.variable == variable


@pytest.mark.parametrize("proxies", [(LOOPBACK,), ("127.0.0.0/8", "10.0.0.0/8"), ("*",)])
async def test_a_proxy_that_is_trusted_says_who_calls(proxies: tuple[str, ...]) -> None:
    # A server without keys turns strangers away: so it shows whom it takes for the caller.
    async with served(Front(trusted_proxies=proxies)) as (_, port):
        from_afar = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
        assert (await asyncio.to_thread(get, port, "/v1/pool", headers=from_afar))[0] == 403
        assert (await asyncio.to_thread(get, port, "/v1/pool"))[0] == 200


@pytest.mark.parametrize("proxies", [(), ("192.0.2.1",)])
async def test_whoever_is_no_trusted_proxy_is_not_believed(
    proxies: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with served(Front(trusted_proxies=proxies)) as (_, port):
        pretended = {"X-Forwarded-For": "203.0.113.7"}
        assert (await asyncio.to_thread(get, port, "/v1/pool", headers=pretended))[0] == 200


def test_serve_takes_certificate_and_proxies_from_its_settings(certificate: Front, tmp_path: Path) -> None:
    environment = os.environ | {
        "CONCLAVE_DATA_DIR": str(tmp_path),
        "CONCLAVE_ORCHESTRATOR": "simulated",
        "CONCLAVE_TLS_CERT_FILE": str(certificate.tls_cert_file),
        "CONCLAVE_TLS_KEY_FILE": str(certificate.tls_key_file),
        "CONCLAVE_FORWARDED_ALLOW_IPS": LOOPBACK,
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--json"]
    sources = Path(__file__).resolve().parents[2] / "src"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=sources) as process:
        assert process.stdout is not None
        try:
            said = b"".join(iter(process.stdout.readline, b"}\n"))
            (url,) = json.loads(said + b"}")["urls"]
            port = int(url.rpartition(":")[2])
            assert get(port, "/v1/pool", trusting=certificate)[0] == 200
            assert get(port, "/v1/pool", trusting=certificate, headers={"X-Forwarded-For": "203.0.113.7"})[0] == 403
        finally:
            process.terminate()
        assert process.wait(20) == 0
