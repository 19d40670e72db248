"""What every request has to pass before anything of it is read: the key, the host's name, the size."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sap2.serve.errors import BAD_REQUEST, CLOSED, FORBIDDEN, TIMEOUT, TOO_LARGE, UNAUTHORIZED, ApiError
from sap2.serve.options import MIB, Limits, ServeOptions
from sap2.serve.service import Service

_OPEN = ("/health",)
_OPEN_METHODS = ("GET", "HEAD")
_LINGER_SECONDS = 5.0
"""How long the rest of a refused request is read and thrown away, so that its sender comes to read the answer."""


class Guard:
    """Middleware: checks callers and counts answers."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, state = time.monotonic(), CLOSED, {"started": False}

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, state["started"] = message["status"], True
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, noting)
        except ApiError as error:
            if not state["started"]:
                await send_error(error, noting)
                await _linger(scope, receive)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._service.metrics.note_request(path, status, time.monotonic() - begun)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        options = self._service.options
        _check_host(headers, options)
        # static files hold nothing of anybody, and a browser asks for them without a key
        guarded = scope["path"].startswith(("/v1/", "/metrics", "/openapi.json", "/docs"))
        if options.api_key is not None and guarded:
            _check_key(headers.get(b"authorization", b""), options.api_key)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise ApiError(BAD_REQUEST, "Content-Length is no number")
        if int(length) > options.limits.upload_bytes:
            raise too_large(options.limits)


def too_large(limits: Limits) -> ApiError:
    """The error for a request that is too long."""
    return ApiError(TOO_LARGE, f"the request is too large; allowed: {limits.upload_bytes // MIB} MiB")


def _check_host(headers: dict[bytes, bytes], options: ServeOptions) -> None:
    """Refuse what a page of another site makes a browser send here."""
    host = headers.get(b"host", b"").decode("latin-1")
    if options.hosts is not None and _without_port(host) not in options.hosts:
        raise ApiError(FORBIDDEN, "this server is asked by the name localhost or its address only")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and options.api_key is None and origin.partition("://")[2] != host:
        raise ApiError(FORBIDDEN, "pages of other sites may not ask this server")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host


def _check_key(given: bytes, key: str) -> None:
    kind, _, value = given.partition(b" ")
    same = hmac.compare_digest(value.strip(), key.encode())  # in constant time
    if kind.lower() != b"bearer" or not same:
        raise ApiError(UNAUTHORIZED, "the API key is missing or wrong", code="invalid_api_key")


async def send_error(error: ApiError, send: Send) -> None:
    """Answer with an error."""
    body = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _linger(scope: Scope, receive: Receive) -> None:
    if scope["method"] in _OPEN_METHODS:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


async def read_body(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body of a request in parts.

    Raises:
        ApiError: it is too long, or its sender pauses for too long, or goes away.
    """
    count, more = 0, True
    while more:
        try:
            async with asyncio.timeout(limits.idle_seconds):
                message = await request.receive()
        except TimeoutError:
            raise ApiError(TIMEOUT, f"the request paused for more than {limits.idle_seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise ApiError(CLOSED, "the caller has gone")
        part, more = message.get("body", b""), message.get("more_body", False)
        count += len(part)
        if count > limits.upload_bytes:
            raise too_large(limits)
        if part:
            yield part


async def until_gone(request: Request) -> None:
    """Wait until the caller of a request that was read goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        ApiError: it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(BAD_REQUEST, "the request is no JSON object")
    return found
