# SPDX-License-Identifier: Apache-2.0
"""Servers that behave as no server should, on loopback, over real sockets."""

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Script = Callable[[Callable[[bytes], None], bytes], None]
"""From a way to send bytes and the head of the request to the sent bytes; it ends when the other side has gone."""


class Server:
    """Accepts connections, notes every byte that comes in, and does what its script says."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.heard = b""
        self.sent = 0
        self.connections = 0
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        with contextlib.suppress(OSError), connection:
            talk = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with talk:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = talk.recv(65536)
                    if not piece:
                        return
                    head += piece
                    self.heard += piece

                def send(data: bytes) -> None:
                    talk.sendall(data)
                    self.sent += len(data)

                self._script(send, head)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server for the time of a block."""
    server = Server(script, tls=tls)
    try:
        yield server
    finally:
        server.close()


def whole(body: bytes, *, status: str = "200 OK", headers: str = "Content-Type: application/json") -> Script:
    """One decent answer."""
    head = f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    return lambda send, _: send(head + body)


def endless(piece: bytes, *, headers: str = "Content-Type: application/json", begin: bytes = b"") -> Script:
    """A whole head, and then a body without an end."""

    def script(send: Callable[[bytes], None], _: bytes) -> None:
        send(f"HTTP/1.1 200 OK\r\n{headers}\r\nConnection: close\r\n\r\n".encode() + begin)
        while True:
            send(piece)

    return script


def chunked_forever(piece: bytes, *, headers: str = "Content-Type: application/json") -> Script:
    """The same in chunks, of which the last never comes."""

    def script(send: Callable[[bytes], None], _: bytes) -> None:
        send(f"HTTP/1.1 200 OK\r\n{headers}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    return script


class Proxy:
    """Passes each request on to one server, and records it."""

    def __init__(self, port: int) -> None:
        self.heads: list[str] = []
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            self.heads.append(head.decode())
            if head.startswith(b"CONNECT"):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
            self._pass(server, client)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)

    def close(self) -> None:
        self._listener.close()


class Authority:
    """Signs certificates: good ones, and ones that are not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A test's own authority")])
        self.certificate = folder / "authority.pem"
        basic = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._own = (
            self._made(self._name, self._key.public_key())
            .add_extension(basic, critical=True)
            .add_extension(usage, critical=True)
        )
        self.certificate.write_bytes(self._pem(self._own.sign(self._key, hashes.SHA256())))

    def _made(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, age_in_days: int = 0):
        day = dt.timedelta(days=1)
        now = dt.datetime.now(dt.UTC) - age_in_days * day
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            # Python 3.13 asks for both identifiers.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, name: str, *, host: str = "127.0.0.1", age_in_days: int = 0) -> ssl.SSLContext:
        """Return what a server with such a certificate uses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            named = x509.DNSName(host)
        certificate = (
            self._made(subject, key.public_key(), age_in_days=age_in_days)
            .add_extension(x509.SubjectAlternativeName([named]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(self._pem(certificate) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context
