"""What every peer posts, and how: the same bodies, signed as Standard Webhooks, over one of two HTTP clients."""

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import aiohttp

BODY_BYTES = 536
_TIMESTAMP = "2026-11-24T05:53:26.776655Z"
_HEAD = '{"type": "order.created", "timestamp": "%s", "data": ' % _TIMESTAMP


def data(n: int, room: int) -> str:
    """An order as JSON text of exactly `room` bytes; no two alike. PostgreSQL's jsonb prints it as long."""
    order = {"n": n, "note": "", "currency": "EUR", "customer": f"{n * 2654435761 % 2**64:016x}", "total_cents": n % 100_000}
    order["note"] = "leave it with the neighbours, please; " * 20
    order["note"] = order["note"][: room - len(json.dumps({**order, "note": ""}))]
    return json.dumps(order)


def bodies(count: int) -> Iterator[str]:
    """Request bodies as Martlet builds them by default, BODY_BYTES long; peers store them whole."""
    for n in range(count):
        yield _HEAD + data(n, BODY_BYTES - len(_HEAD) - 1) + "}"


class _Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time. The receiver answers without a body."""

    def __init__(self) -> None:
        self._head = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n") and self._answer is not None:
            status, self._head = int(self._head[9:12]), b""
            self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the receiver hung up"))

    async def request(self, message: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer


class LeanClient:
    """11 µs of processor time a request where aiohttp takes 67, so that a queue is measured and not its HTTP client."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._line = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._idle: list[_Connection] = []

    async def post(self, message_id: object, second: int, signature: str, body: bytes) -> int:
        head = (
            f"{self._line}Content-Length: {len(body)}\r\nwebhook-id: {message_id}\r\nwebhook-timestamp: {second}\r\n"
            f"webhook-signature: {signature}\r\n\r\n"
        )
        connection = self._idle.pop() if self._idle else await self._connect()
        status = await connection.request(head.encode() + body)
        self._idle.append(connection)
        return status

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection


class AiohttpClient:
    """What an application would take."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def post(self, message_id: object, second: int, signature: str, body: bytes) -> int:
        # It wants to be made within a running loop.
        self._session = self._session or aiohttp.ClientSession()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": str(message_id),
            "webhook-timestamp": str(second),
            "webhook-signature": signature,
        }
        async with self._session.post(self._url, data=body, headers=headers) as response:
            return response.status


CLIENTS = {"lean": LeanClient, "aiohttp": AiohttpClient}


class Poster:
    """Signs and posts, by the client that WEBHOOK_CLIENT names."""

    def __init__(self) -> None:
        self._client = CLIENTS[os.environ.get("WEBHOOK_CLIENT", "lean")](os.environ["WEBHOOK_URL"])
        self._key = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))

    async def post(self, message_id: object, body: bytes) -> None:
        """Throws unless the receiver took it (2xx), so that the queue can try again."""
        second = int(time.time())
        signature = hmac.digest(self._key, b"%s.%d.%s" % (str(message_id).encode(), second, body), "sha256")
        status = await self._client.post(message_id, second, "v1," + base64.b64encode(signature).decode(), body)
        if not 200 <= status < 300:
            raise RuntimeError(f"the receiver answered {status}")
