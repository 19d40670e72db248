"""Errors in OpenAI's JSON shape. Standard library only."""

from __future__ import annotations

from typing import Any

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TIMEOUT = 400, 401, 403, 404, 408
TOO_LARGE, UNSUPPORTED, TOO_MANY, CLOSED, INTERNAL, UNAVAILABLE = 413, 415, 429, 499, 500, 503

_TYPES = {
    UNAUTHORIZED: "authentication_error",
    FORBIDDEN: "permission_error",
    TOO_MANY: "rate_limit_error",
    INTERNAL: "server_error",
    UNAVAILABLE: "server_error",
}
RETRY_SECONDS = 5
"""What a caller is told to wait where nobody knows better."""


class ApiError(Exception):
    """What a caller is told: one sentence, without paths of this machine.

    Args:
        status: of HTTP.
        message: one sentence.
        param: the field of the request that it is about.
        code: a name for programs.
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = RETRY_SECONDS if retry_after is None and status in (TOO_MANY, UNAVAILABLE) else retry_after

    def __reduce__(self) -> tuple[type[ApiError], tuple[Any, ...]]:
        return ApiError, (self.status, self.message, self.param, self.code, self.retry_after)

    def body(self) -> dict[str, Any]:
        """The JSON object that says it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == UNAUTHORIZED else {})
