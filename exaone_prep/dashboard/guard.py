"""Who may look, and what a browser may do with a page: an optional token, known hosts, strict headers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp

COOKIE: Final = "exaone_prep_dashboard"
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Of charts, which carry their style with them and are never more than an image."""
_OPEN: Final = ("/static/", "/healthz")
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard(BaseHTTPMiddleware):
    """Refuses who has no token where one is asked for, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, *, token: str | None, host: str, refused: Callable[[Request], Response]) -> None:
        """Take what is asked for.

        Args:
            app: Behind it.
            token: None: whoever reaches it may look.
            host: The address that is listened on.
            refused: Makes the page for who has no token.
        """
        super().__init__(app)
        self._digest = hashlib.sha256(token.encode()).hexdigest() if token else None
        self._names = _LOCAL_NAMES if is_local(host) and not token else None
        self._refused = refused

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """See `BaseHTTPMiddleware`."""
        response = await self._answer(request, call_next)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _answer(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        # A page elsewhere may give its own name this machine's address; it cannot give it our name.
        if self._names is not None and _host(request.headers) not in self._names:
            return PlainTextResponse("This name is not one of this dashboard.\n", status_code=421)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Nothing can be changed here.\n", status_code=405, headers={"Allow": "GET, HEAD"})
        if self._digest is None or request.url.path.startswith(_OPEN):
            return await call_next(request)
        given = request.query_params.get("token")
        if given is not None and self._is_token(given):
            rest = [(name, word) for name, word in parse_qsl(request.url.query) if name != "token"]
            # Neither in the history nor in a bookmark.
            where = "/" + request.url.path.lstrip("/") + ("?" + urlencode(rest) if rest else "")
            answer = RedirectResponse(where, status_code=303)
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, self._digest, httponly=True, samesite="lax", secure=secure, path="/")
            return answer
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE, "")
        if hmac.compare_digest(cookie.encode(), self._digest.encode()) or (
            scheme.lower() == "bearer" and self._is_token(bearer.strip())
        ):
            return await call_next(request)
        return self._refused(request)

    def _is_token(self, word: str) -> bool:
        assert self._digest is not None
        return hmac.compare_digest(hashlib.sha256(word.encode()).hexdigest(), self._digest)


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    return host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.rpartition(":")[0] or host
