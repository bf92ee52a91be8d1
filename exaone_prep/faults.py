"""Faults of object stores: which pass by themselves, which a person must mend; and trying again, more and more slowly.

Every client of a store has a family of errors of its own. They are told apart by the HTTP status that they carry, and
where there was no answer by the names of their classes, so that no client needs to be imported for it.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeVar

Fault = Literal["passing", "denied", "exists", "beyond", "other"]
"""`passing`: try again; `denied`: credentials or rights; `exists`: a name that was to be created is there; `beyond`: a
range past the end of a file; `other`: missing files, and what is nobody's business here."""

ATTEMPTS: Final = 7
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 8.0
"""Together at most 16 s of waiting, so that a build that is stopped meanwhile ends in time."""

_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429})
"""Beside all from 500 on. 409: two conditional PUTs of one name at the same moment; the next try tells which won."""
_PASSING_CODES: Final = frozenset({"RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})
"""Of S3, under status 400: the body came late, or was damaged on its way."""
_DENIED_STATUSES: Final = frozenset({401, 403})
_PASSING_ERRNOS: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EREMOTEIO, errno.ENETUNREACH, errno.EHOSTUNREACH})
_PASSING_CLASSES: Final = frozenset(
    {
        "ConnectionError",
        "TimeoutError",
        "HTTPClientError",  # botocore
        "ResponseParserError",
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "IncompleteRead",  # urllib3, http.client
        "TransportError",  # google-auth
        "ServiceRequestError",  # azure-core
        "ServiceResponseError",
        "FlexibleChecksumError",  # botocore: damaged on its way here
        "ChecksumError",  # gcsfs
    }
)
_DENIED_CLASSES: Final = frozenset(
    {
        "PermissionError",
        "NoCredentialsError",  # botocore
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "DefaultCredentialsError",  # google-auth
        "ClientAuthenticationError",  # azure-core
    }
)

T = TypeVar("T")


def fault_of(error: BaseException) -> Fault:
    """What an error of a store's client means."""
    for one in _chain(error):
        if isinstance(one, FileExistsError):
            return "exists"
        names = {kind.__name__ for kind in type(one).__mro__}
        if names & _DENIED_CLASSES:
            return "denied"
        status = _status(one)
        if _code(one) in _PASSING_CODES:
            return "passing"
        if status is not None:
            return _fault_of_status(status)
        if names & _PASSING_CLASSES:
            return "passing"
    return "passing" if isinstance(error, OSError) and error.errno in _PASSING_ERRNOS else "other"


def patiently(ask: Callable[[], T]) -> T:
    """Ask a store, again and again while a fault is one that passes.

    Args:
        ask: Does it; may be called several times, although an earlier call had its effect and only the answer was lost.

    Raises:
        Exception: The last one of the store's client, as it is.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return ask()
        except Exception as error:  # each client has a family of its own
            if fault_of(error) != "passing":
                raise
        wait_s = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
        time.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 (so that many builders do not come back at once)
    return ask()


def words_of(error: BaseException) -> str:
    """What an error says, on one line, without a full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:  # gcsfs; aiohttp; azure-core
        found = next((getattr(error, name) for name in ("code", "status", "status_code") if hasattr(error, name)), None)
    status = int(found) if isinstance(found, int | str) and str(found).isdigit() else None
    return status if status is not None and 400 <= status < 600 else None


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _fault_of_status(status: int) -> Fault:
    if status >= 500 or status in _PASSING_STATUSES:
        return "passing"
    if status in _DENIED_STATUSES:
        return "denied"
    return "exists" if status == 412 else "beyond" if status == 416 else "other"
