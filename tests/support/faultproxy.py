"""An HTTP proxy before an S3 server that loses, delays, damages and refuses on demand, and counts.

It keeps the Host header, so signatures stay valid. Every request is recorded; the first rule that
matches decides its fate::

    with FaultProxy(server.endpoint_url) as proxy:
        proxy.add(Fault.LOSE_ANSWER, method="PUT", times=1)
        …
        assert proxy.count("PUT") == 2
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import urlsplit

_HEAD_LIMIT: Final = 1 << 20
STATUS: Final = {
    "SlowDown": 503, "InternalError": 500, "ServiceUnavailable": 503, "TooManyRequests": 429, "RequestTimeout": 400,
    "ConditionalRequestConflict": 409, "PreconditionFailed": 412, "AccessDenied": 403, "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403, "ExpiredToken": 400, "RequestTimeTooSkewed": 403, "NoSuchBucket": 404,
    "BadDigest": 400, "NotImplemented": 501, "InvalidObjectState": 403,
}  # fmt: skip


class Fault(Enum):
    """What happens to a request."""

    REFUSE = auto()  # connection reset before anything is forwarded
    ANSWER = auto()  # answered with an error code, not forwarded
    RESET_MID_BODY = auto()  # half of the body forwarded, then both sides reset
    LOSE_ANSWER = auto()  # forwarded and answered, the answer lost with a reset
    HANG = auto()  # forwarded and answered, the answer withheld until the client gives up
    ANSWER_AFTER_COMMIT = auto()  # forwarded, then answered with an error code
    DELAY = auto()  # forwarded after `seconds`
    SLOW_ANSWER = auto()  # the answer's body drips for `seconds`
    TRUNCATE_ANSWER = auto()  # half of the answer's body, then a reset
    CORRUPT_ANSWER = auto()  # one bit of the answer's body flipped
    CORRUPT_REQUEST = auto()  # one bit of the request's body flipped
    DROP_CONDITIONS = auto()  # If-Match and If-None-Match removed: a server that ignores them


@dataclass
class Rule:
    """Which requests a fault meets: method and path by regular expression, then the n-th match on."""

    fault: Fault
    method: str = ".*"
    path: str = ""
    code: str = "SlowDown"
    seconds: float = 0.5
    skip: int = 0
    times: int | None = None
    probability: float = 1.0
    fired: int = 0

    def takes(self, method: str, target: str, chance: Callable[[], float]) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, target)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if (self.times is not None and self.fired >= self.times) or chance() >= self.probability:
            return False
        self.fired += 1
        return True


@dataclass(frozen=True)
class Seen:
    """One request as it came by."""

    method: str
    target: str
    fault: Fault | None
    headers: dict[str, str]


@dataclass
class _Request:
    head: bytes
    method: str
    target: str
    headers: dict[str, str]


class FaultProxy:
    """A proxy in a thread of its own; a context manager."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._chance = random.Random(seed).random
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0
        self.seen: list[Seen] = []
        self.answered_bytes = 0

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_LIMIT)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def add(self, fault: Fault, **values: Any) -> Rule:
        rule = Rule(fault, **values)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Heal: forget all rules; what was seen stays."""
        self._rules.clear()

    def forget(self) -> None:
        """Start counting anew."""
        self.seen.clear()
        self.answered_bytes = 0

    def count(self, method: str = ".*", path: str = "") -> int:
        return sum(bool(re.fullmatch(method, s.method) and re.search(path, s.target)) for s in self.seen)

    async def _stop(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        tasks = [t for t in asyncio.all_tasks() if t is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(*self._upstream, limit=_HEAD_LIMIT)
        except OSError:
            to_client.close()
            return
        exchange = _Exchange(self, client, to_client, server, to_server)
        try:
            while await exchange.one():
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            to_server.close()
            to_client.close()

    def fate(self, request: _Request) -> Rule | None:
        rule = next((r for r in self._rules if r.takes(request.method, request.target, self._chance)), None)
        fault = rule.fault if rule else None
        self.seen.append(Seen(request.method, request.target, fault, request.headers))
        return rule


@dataclass
class _Exchange:
    """One connection of a client and its twin to the server."""

    proxy: FaultProxy
    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    _after: dict[Fault, Callable[[Rule, _Request, bytes, bytes], Awaitable[bool]]] = field(init=False)

    def __post_init__(self) -> None:
        self._after = {
            Fault.LOSE_ANSWER: self._lose,
            Fault.HANG: self._hang,
            Fault.ANSWER_AFTER_COMMIT: self._answer_after,
            Fault.SLOW_ANSWER: self._drip,
            Fault.TRUNCATE_ANSWER: self._truncate,
            Fault.CORRUPT_ANSWER: self._corrupt,
        }

    async def one(self) -> bool:
        """Pass one request on; False when the connection is over."""
        request = _parse(await self.client.readuntil(b"\r\n\r\n"))
        rule = self.proxy.fate(request)
        fault = rule.fault if rule else None
        if fault is Fault.REFUSE:
            return _reset(self.to_client)
        if rule and fault is Fault.ANSWER:
            if "expect" not in request.headers:
                await _body(self.client, request.headers)
            return await self._error(rule.code, request.method)
        if rule and fault is Fault.DELAY:
            await asyncio.sleep(rule.seconds)
        if not await self._forward(request, fault):
            return False
        head, body = await self._answer(request.method)
        self.proxy.answered_bytes += len(body)
        if rule and fault in self._after:
            return await self._after[fault](rule, request, head, body)
        self.to_client.write(head + body)
        await self.to_client.drain()
        return "close" not in _parse(head).headers.get("connection", "")

    async def _forward(self, request: _Request, fault: Fault | None) -> bool:
        if "expect" in request.headers:  # not every server answers this itself
            self.to_client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.to_client.drain()
        head = re.sub(rb"(?im)^expect:.*\r\n", b"", request.head)
        if fault is Fault.DROP_CONDITIONS:
            head = re.sub(rb"(?im)^if-(none-)?match:.*\r\n", b"", head)
        body = await _body(self.client, request.headers)
        if fault is Fault.CORRUPT_REQUEST:
            body = _flipped(body)
        if fault is Fault.RESET_MID_BODY:
            self.to_server.write(head + body[: len(body) // 2])
            await self.to_server.drain()
            await asyncio.sleep(0.02)
            _reset(self.to_server)
            return _reset(self.to_client)
        self.to_server.write(head + body)
        await self.to_server.drain()
        return True

    async def _answer(self, method: str) -> tuple[bytes, bytes]:
        head = await self.server.readuntil(b"\r\n\r\n")
        while re.match(rb"HTTP/1\.\d 1\d\d", head):
            head = await self.server.readuntil(b"\r\n\r\n")
        if method == "HEAD" or re.match(rb"HTTP/1\.\d (204|304)", head):
            return head, b""
        return head, await _body(self.server, _parse(head).headers)

    async def _error(self, code: str, method: str) -> bool:
        text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        body = b"" if method == "HEAD" else text
        head = f"HTTP/1.1 {STATUS[code]} Injected\r\nContent-Type: application/xml\r\n"
        self.to_client.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await self.to_client.drain()
        return False

    async def _lose(self, _rule: Rule, _request: _Request, _head: bytes, _body: bytes) -> bool:
        return _reset(self.to_client)

    async def _hang(self, _rule: Rule, _request: _Request, _head: bytes, _body: bytes) -> bool:
        await self.client.read()  # until the client gives up
        return False

    async def _answer_after(self, rule: Rule, request: _Request, _head: bytes, _body: bytes) -> bool:
        return await self._error(rule.code, request.method)

    async def _drip(self, rule: Rule, _request: _Request, head: bytes, body: bytes) -> bool:
        self.to_client.write(head)
        step = max(1, len(body) // 10)
        for start in range(0, len(body), step):
            self.to_client.write(body[start : start + step])
            await self.to_client.drain()
            await asyncio.sleep(rule.seconds / 10)
        return True

    async def _truncate(self, _rule: Rule, _request: _Request, head: bytes, body: bytes) -> bool:
        self.to_client.write(head + body[: len(body) // 2])
        await self.to_client.drain()
        await asyncio.sleep(0.02)
        return _reset(self.to_client)

    async def _corrupt(self, _rule: Rule, _request: _Request, head: bytes, body: bytes) -> bool:
        self.to_client.write(head + _flipped(body))
        await self.to_client.drain()
        return True


def _parse(head: bytes) -> _Request:
    first, *lines = head.decode("latin1").split("\r\n")
    method, target, *_ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    return _Request(head, method, target, {name.lower(): value.strip() for name, _, value in pairs})


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if "chunked" not in headers.get("transfer-encoding", ""):
        return b""
    chunks = b""
    while True:
        line = await reader.readline()
        size = int(line.split(b";")[0], 16)
        chunks += line + await reader.readexactly(size + 2)
        if size == 0:
            return chunks


def _flipped(body: bytes) -> bytes:
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Reset instead of closing, so that the peer sees an error and not an end; False for the caller's return."""
    plain = writer.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
