"""The routes: transcriptions, chat, models, health, figures, and the page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.staticfiles import StaticFiles

import sap2
from sap2.serve.chat import answer_chat, read_chat
from sap2.serve.errors import CLOSED, INTERNAL, ApiError
from sap2.serve.forms import Asked, read_asked
from sap2.serve.guards import Guard, json_object, read_body, until_gone
from sap2.serve.multipart import read_form
from sap2.serve.openapi import CHAT, DOCS, TRANSCRIPTION
from sap2.serve.service import Opened, Service
from sap2.serve.shapes import MEDIA, delta_event, done_event, dump, event, format_answer

STATIC = Path(__file__).with_name("static")
"""The page, where there is one."""
Result = TypeVar("Result")


def make_app(service: Service) -> FastAPI:
    """The application of a service."""
    app = FastAPI(title="sap2 serve", version=sap2.__version__, description=sap2.__doc__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, service=service)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    _add_routes(app, service)
    if STATIC.is_dir():
        app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/audio/transcriptions", openapi_extra=TRANSCRIPTION)
    async def transcriptions(request: Request) -> Response:
        """Transcribe a recording with the keywords of its slides."""
        return await _answer(request, service, _transcribe)

    @app.post("/v1/chat/completions", openapi_extra=CHAT)
    async def chat_completions(request: Request) -> Response:
        """Transcribe the audio of a message; keywords are those of its text."""
        return await _answer(request, service, _chat)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The names of the model, and what a request may choose."""
        return {"object": "list", "data": [model_object(service, name) for name in service.options.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        from sap2.serve.forms import check_model

        check_model(name, service.options)
        return model_object(service, name)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """200 when requests are answered at once; 503 while the model is loaded, and at the end."""
        service.check_ready()
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(DOCS, media_type="text/html; charset=utf-8")


def model_object(service: Service, name: str) -> dict[str, Any]:
    """A model as OpenAI lists it, with what may be chosen."""
    banks = list(service.options.banks)
    own = {"term_banks": banks, "stages": None, "max_audio_seconds": service.options.limits.audio_seconds}
    if service.lanes is not None:
        own["stages"] = ",".join(service.lanes.transcriber.decoder.stages)
    return {"id": name, "object": "model", "created": 0, "owned_by": "sap2", **own}


Work = Callable[[Request, Service, contextlib.AsyncExitStack], Awaitable[Response]]


async def _answer(request: Request, service: Service, work: Work) -> Response:
    """Do the work of a request in its place of the queue; a stream keeps the place until its end."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(service.place())
        request.state.folder = folder
        response = await work(request, service, stack)
        if isinstance(response, StreamingResponse):
            response.body_iterator = _closing(response.body_iterator, stack.pop_all())
        return response


async def _closing(parts: Any, stack: contextlib.AsyncExitStack) -> AsyncIterator[Any]:
    async with stack, contextlib.aclosing(parts):
        async for part in parts:
            yield part


async def _transcribe(request: Request, service: Service, stack: contextlib.AsyncExitStack) -> Response:
    options, folder = service.options, request.state.folder
    content_type = request.headers.get("content-type", "")
    form = await read_form(read_body(request, options.limits), content_type, folder, options.limits)
    form.take_query(request.query_params.multi_items())
    asked = read_asked(form, options, folder)
    opened = await while_there(request, service.open(asked))
    if asked.stream:
        return StreamingResponse(_events(service, asked, opened), media_type="text/event-stream")
    await while_there(request, decode_all(service, opened))
    return Response(format_answer(asked, opened), media_type=MEDIA[asked.format])


async def _chat(request: Request, service: Service, stack: contextlib.AsyncExitStack) -> Response:
    options, folder = service.options, request.state.folder
    data = b"".join([part async for part in read_body(request, options.limits)])
    chat = read_chat(json_object(data), options, folder)
    opened = await while_there(request, service.open(chat.asked))
    if chat.asked.stream:
        parts = answer_chat(chat, opened, service.decode(opened))
        return StreamingResponse(_told_events(parts), media_type="text/event-stream")
    await while_there(request, decode_all(service, opened))
    return Response(dump(chat.answer(opened)), media_type="application/json")


async def decode_all(service: Service, opened: Opened) -> None:
    """Wait for all segments."""
    async with contextlib.aclosing(service.decode(opened)) as segments:
        async for _ in segments:
            pass


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which ends when the caller goes away.

    Raises:
        ApiError: the caller has gone.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(until_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(CLOSED, "the caller has gone")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _events(service: Service, asked: Asked, opened: Opened) -> AsyncIterator[str]:
    async def parts() -> AsyncGenerator[str, None]:
        async with contextlib.aclosing(service.decode(opened)) as segments:
            number = 0
            async for segment in segments:
                yield delta_event(asked, opened, number, segment)
                number += 1
        yield done_event(asked, opened)

    async with contextlib.aclosing(_told_events(parts())) as told:
        async for part in told:
            yield part


async def _told_events(parts: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Events; an error becomes the last of them, which OpenAI's client raises."""
    try:
        async with contextlib.aclosing(parts) as events:
            async for part in events:
                yield part
    except ApiError as error:
        yield event(error.body())


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, f"{request.method} {request.url.path[:100]}: {error.detail}")
    return JSONResponse(told.body(), told.status, dict(error.headers or {}))


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse(ApiError(INTERNAL, f"the server failed ({type(error).__name__})").body(), INTERNAL)
