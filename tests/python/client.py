"""A small client of throng/1 on aioquic: one control stream, server-opened streams, no retries."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived

from framing import FrameReader, decode_message, encode_message

PATIENCE = 10.0
LIVE, BULK = 1, 2


class Closed(Exception):
    """The edge closed the connection."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


def _part(value) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def make_token(app: str, user: str, secret: str, lifetime: int = 600, kid: str = "1", alg: str = "HS256") -> str:
    """A JWT by hand: HMAC-SHA256 over the first two parts."""
    now = int(time.time())
    claims = {"app": app, "sub": user, "iat": now - max(0, -lifetime) - 1, "exp": now + lifetime}
    signed = _part({"alg": alg, "kid": kid, "typ": "JWT"}) + b"." + _part(claims)
    seal = hmac.new(secret.encode(), signed, hashlib.sha256).digest() if alg == "HS256" else b""
    return (signed + b"." + _part(seal)).decode()


class Protocol(QuicConnectionProtocol):
    """Sorts what comes into answers and deliveries."""

    schema = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.readers = {}
        self.stream_kinds = {}
        self.messages = asyncio.Queue()
        self.closed = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self._data(event.stream_id, event.data)
        elif isinstance(event, ConnectionTerminated) and not self.closed.done():
            self.closed.set_result(event.error_code)
            self.messages.put_nowait(None)

    def _data(self, stream: int, data: bytes):
        # Streams that a server opens in one direction have ids of 3 modulo 4.
        if stream % 4 == 3 and stream not in self.stream_kinds and data:
            self.stream_kinds[stream], data = data[0], data[1:]
        reader = self.readers.setdefault(stream, FrameReader())
        reader.push(data)
        while (frame := reader.next()) is not None:
            message = decode_message(self.schema, *frame)
            if message is not None:
                self.messages.put_nowait((self.stream_kinds.get(stream, 0), *message))


class Client:
    """One connection."""

    def __init__(self, schema, protocol: Protocol):
        self.schema = schema
        self.protocol = protocol
        self.control = protocol._quic.get_next_available_stream_id()
        self.waiting = []
        self.request = 0

    def write(self, data: bytes, end: bool = False):
        """Bytes on the control stream."""
        self.protocol._quic.send_stream_data(self.control, data, end)
        self.protocol.transmit()

    def write_elsewhere(self, data: bytes):
        """Bytes on another bidirectional stream than the control stream."""
        quic = self.protocol._quic
        quic.send_stream_data(quic.get_next_available_stream_id(), data, False)
        self.protocol.transmit()

    def post(self, name: str, **fields):
        """A message, without waiting for anything."""
        self.write(encode_message(self.schema, name, fields))

    async def expect(self, what):
        """The first message, of those kept and those to come, that `what(stream, name, fields)` accepts."""
        for place, message in enumerate(self.waiting):
            if what(*message):
                return self.waiting.pop(place)
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.protocol.messages.get()
                if message is None:
                    self.protocol.messages.put_nowait(None)
                    raise Closed(self.protocol.closed.result())
                if what(*message):
                    return message
                self.waiting.append(message)

    async def ask(self, name: str, **fields):
        """A request and its first answer, as (name, fields)."""
        self.request += 1
        request = str(self.request)
        self.post(name, request=request, **fields)
        _, answer, fields = await self.expect(
            lambda stream, answer, fields: stream == 0 and fields.get("request") == request
        )
        return answer, fields

    async def retried(self, name: str, **fields):
        """`ask`, again while the answer is a retryable error: leaders change."""
        for _ in range(30):
            answer, got = await self.ask(name, **fields)
            if answer != "Error" or got["class"] != "Retryable":
                return answer, got
            await asyncio.sleep(max(0.2, got["retry_after_ms"] / 1000))
        return answer, got

    async def ping(self):
        """Ends when the edge has answered: the connection is alive and the frames before were read."""
        nonce = str(time.time_ns())
        self.post("Ping", nonce=nonce)
        await self.expect(lambda _, name, fields: name == "Pong" and fields["nonce"] == nonce)

    async def hello(self):
        """Hello, and what the edge says."""
        self.post("Hello", versions=[1], client="conformance/1")
        _, name, fields = await self.expect(lambda stream, name, fields: stream == 0)
        return name, fields

    async def open(self, token: str, device: str = "python"):
        """Hello and Authenticate; the last answer."""
        name, fields = await self.hello()
        assert name == "HelloOk" and fields["version"] == 1, f"{name} {fields}"
        self.post("Authenticate", token=token, device=device)
        _, name, fields = await self.expect(lambda stream, name, fields: stream == 0)
        return name, fields

    async def close_code(self) -> int:
        """The code the edge closes the connection with."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self.protocol.closed)


@asynccontextmanager
async def connected(schema, edge: str, ca: str, alpn: str = "throng/1"):
    """A connection whose handshake is done."""
    host, _, port = edge.rpartition(":")
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[alpn])
    configuration.load_verify_locations(cafile=ca)

    def protocol(*args, **kwargs):
        made = Protocol(*args, **kwargs)
        made.schema = schema
        return made

    host = host.strip("[]")
    async with connect(host, int(port), configuration=configuration, create_protocol=protocol) as link:
        yield Client(schema, link)
