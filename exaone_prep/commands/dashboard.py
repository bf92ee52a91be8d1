"""`exaone-prep dashboard`: serve the pages of some data sets until it is ended."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from exaone_prep.errors import PrepError

_NEEDED: Final = ("fastapi", "jinja2", "matplotlib", "prometheus_client", "uvicorn")


def dashboard_command(urls: Sequence[str], *, host: str, port: int, token: str | None) -> None:
    """Serve; says where once pages can be asked for.

    Raises:
        PrepError: The extra is not installed, or the port is taken.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise PrepError(
            f"The dashboard needs the extra `dashboard` ({', '.join(missing)} missing): "
            "pip install 'exaone-prep[dashboard]'."
        )
    import uvicorn

    from exaone_prep.dashboard.app import create_app
    from exaone_prep.dashboard.guard import is_local
    from exaone_prep.dashboard.sources import Sources

    listening = listening_socket(host, port)
    sources = Sources(urls)
    sources.load()
    for source in sources.by_key.values():
        if source.trouble:
            _say(f"{source.url} cannot be read now: {source.trouble}")
        elif source.view() is None:
            _say(f"There is no data set at {source.url} yet; its pages will fill once a build begins there.")
    if not is_local(host) and token is None:
        _say("Without --token, whoever reaches this port sees the slides.")
    # The token is part of an address once, so addresses are written to no log.
    config = uvicorn.Config(
        create_app(sources, token=token, host=host), log_level="warning", access_log=False, lifespan="off"
    )
    port = listening.getsockname()[1]
    sys.stdout.write(f"http://{'127.0.0.1' if is_local(host) else f'[{host}]' if ':' in host else host}:{port}/\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket on an address.

    Raises:
        PrepError: It is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(256)  # whoever asks before the server is up waits for it
    except (OSError, OverflowError) as error:
        listening.close()
        raise PrepError(f"{host}:{port} cannot be listened on ({error}); choose another --port.") from error
    return listening


def _say(sentence: str) -> None:
    sys.stderr.write(f"exaone-prep: {sentence}\n")
