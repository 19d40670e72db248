"""The process: socket, signals, loading, and the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from sap2.errors import print_note
from sap2.pipeline.sharing import Lanes
from sap2.serve.app import make_app
from sap2.serve.folder import private_folder
from sap2.serve.options import ServeOptions
from sap2.serve.service import Service

_TICK = 0.1


class Server(uvicorn.Server):
    """Uvicorn's server, which on SIGTERM finishes what runs and answers 503 to what is new, and then ends with 0."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float):
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal begins the end; a second one ends at once."""
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        print_note(f"{signal.Signals(sig).name}: finishing {self._service.busy} requests")

    async def main_loop(self) -> None:
        """As upstream's, until everything is finished."""
        waiting = asyncio.create_task(self._until_done())
        await super().main_loop()
        waiting.cancel()

    async def _until_done(self) -> None:
        while not self._service.draining and self._service.failure is None:
            await asyncio.sleep(_TICK)
        left = self._drain_seconds
        while self._service.busy and left > 0 and self._service.failure is None:
            await asyncio.sleep(_TICK)
            left -= _TICK
        if self._service.busy:
            self.force_exit = True
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A socket for the server.

    Raises:
        OSError: it is taken, or not allowed; names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror or "cannot be bound", f"{host}:{port}") from None
    return made


def serve(
    options: ServeOptions, bound: socket.socket, load: Callable[[], Lanes], place: str, drain_seconds: float
) -> None:
    """Serve until a signal comes. The model is loaded while the server answers that it is not ready yet.

    Args:
        load: gives the model.
        place: where the private folder is made.

    Raises:
        InputError: the model cannot be loaded.
        EngineError: the engine has died.
    """
    with private_folder(place) as folder:
        _keep_within(folder)
        service = Service(options, folder)
        config = uvicorn.Config(make_app(service), log_level="warning", access_log=False, timeout_keep_alive=30)
        server = Server(config, service, drain_seconds)
        threading.Thread(target=_load, args=(service, load, bound), name="load", daemon=True).start()
        logging.getLogger("uvicorn.error").addFilter(lambda record: "CancelledError" not in record.getMessage())
        try:
            server.run([bound])
        finally:
            service.close()
        if service.failure is not None:
            raise service.failure


def _keep_within(folder: Path) -> None:
    """Temporary files of this process, and of those that it starts, go to the folder."""
    tempfile.tempdir = str(folder)
    os.environ["TMPDIR"] = str(folder)


def _load(service: Service, load: Callable[[], Lanes], bound: socket.socket) -> None:
    try:
        service.start(load())
    except BaseException as error:
        service.failure = error
        return
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print_note(f"ready: http://{shown}:{port}/ (POST /v1/audio/transcriptions, GET /docs)")
