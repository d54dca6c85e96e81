"""The addresses of the server, as a FastAPI application."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from heartml.inference.predict import NOTICE
from heartml.server import mlflow_format, uploads
from heartml.server.served import Holder
from heartml.server.uploads import BadRequest, Upload

_TAIL = 8          # bytes: a form ends with --
_POSTED = ("predict", "invocations")
STATIC = Path(__file__).parent / "static"
ONE_FORM = "multipart/form-data"
_MEDIA = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
          ".onnx": "application/octet-stream", ".webmanifest": "application/manifest+json", ".json": "application/json"}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "One or several sound files"}
_PREDICT_BODY = {"requestBody": {"required": True, "content": {
    ONE_FORM: {"schema": {"type": "object", "required": ["file"], "properties": {
        "file": _FILES,
        "patient_id": {**_TEXTS, "description": "None, one, or one for each file"},
        "location": {**_TEXTS, "description": "AV, PV, TV, MV or Phc; none, one, or one for each file"},
    }}},
    "audio/*": {"schema": {"type": "string", "format": "binary", "description": "The bytes of one sound file"}},
}}, "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}, "description": f"Of bytes: {words}"}
                   for name, words in (("name", "the file's name"), ("patient_id", "the patient"),
                                       ("location", "AV, PV, TV, MV or Phc"))]}
_ERROR = {"description": "What is wrong, as `error`", "content": {"application/json": {"schema": {
    "type": "object", "properties": {"error": {"type": "string"}, "notice": {"type": "string"}}}}}}
_SHARES = {"type": "object", "additionalProperties": {"type": "number"}}
_ANSWER = {"type": "object", "properties": {
    "unit_id": {"type": "string", "description": "The patient, or the file where no patient is known"},
    "decision": {"type": "string", "description": "A class, or `refer`: then a human should decide"},
    "leaning": {"type": "string", "description": "The class of the decision rule, also where the decision is `refer`"},
    "confidence": {"type": "number", "description": "Calibrated probability of `leaning`"},
    "calibrated": {**_SHARES, "description": "Class -> calibrated probability: to be shown"},
    "probabilities": {**_SHARES, "description": "Class -> probability as the decision rule uses it"},
    "reasons": {"type": "array", "items": {"type": "string"}, "description": "Why it is referred; empty if it is not"},
    "outside": {"type": "boolean", "description": "The recordings cannot be judged: the numbers mean nothing"},
    "warnings": {"type": "array", "items": {"type": "string"}, "description": "About the signal of single recordings"},
    "recordings": {"type": "array", "items": {"type": "object"}, "description": "Each file: seconds, heart, findings"},
}}
_PREDICTED = {"description": "As `heartml predict --json`", "content": {"application/json": {"schema": {
    "type": "object", "properties": {"answers": {"type": "array", "items": _ANSWER},
                                     "not_scored": {"type": "array", "items": {"type": "object"}}}}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {200: _PREDICTED, **dict.fromkeys((400, 413, 422, 503, 504), _ERROR)}


class Busy(Exception):  # noqa: N818 - names what is the case
    """More requests wait than the server takes."""


class Limits:
    """What the server takes.

    Args:
        threads: requests that are answered at the same time.
        waiting: requests that may wait beside them.
        seconds: within which a request is answered once it has arrived, or refused with status 504.
        body_seconds: within which it has to arrive.
    """

    def __init__(self, threads: int | None = None, waiting: int = 64, seconds: float = 60.0,
                 body_seconds: float = 20.0) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.waiting, self.seconds, self.body_seconds = waiting, seconds, body_seconds


class Work:
    """Answers requests in threads; what comes while too many wait is refused at once."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self._pool, self._inside = limits, ThreadPoolExecutor(limits.threads, "answer"), 0

    @property
    def inside(self) -> int:
        """Requests that are being answered, or wait."""
        return self._inside

    def enter(self) -> None:
        """Take one more request.

        Raises:
            Busy: too many wait.
        """
        if self._inside >= self.limits.threads + self.limits.waiting:
            raise Busy
        self._inside += 1

    def leave(self) -> None:
        """The request has been answered."""
        self._inside -= 1

    async def run(self, function: Callable[..., Any], *values: Any) -> Any:
        """The function's result, computed in a thread."""
        return await asyncio.wait_for(
            asyncio.get_running_loop().run_in_executor(self._pool, function, *values), self.limits.seconds)


def make(holder: Holder, limits: Limits, refresh_s: float = 5.0, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application.

    Args:
        holder: holds the model.
        refresh_s: how often the registry is asked for another champion; 0: never.
        hosts: names that requests may be addressed to. A page elsewhere cannot reach a server of this machine then by
            giving its own name this machine's address.
    """
    work = Work(limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_refreshing(holder, refresh_s)) if refresh_s else None
        yield
        if task:
            task.cancel()

    app = FastAPI(title="HeartML", description=NOTICE, version=str(holder.served.model.statement["heartml"]),
                  docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=5)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _add_errors(app)
    _add_answers(app, holder, work)
    _add_page(app, holder)
    return app


def _add_answers(app: FastAPI, holder: Holder, work: Work) -> None:
    @app.post("/predict", summary="Predict for sound files", openapi_extra=_PREDICT_BODY, responses=_RESPONSES)
    async def predict(request: Request) -> JSONResponse:
        """WAV, FLAC, OGG, MP3, ... in the body, or one or several as the field `file` of a form.

        With a form, `patient_id` and `location` may be given, once or for each file. Files of one patient are answered
        together. The answer is that of `heartml predict --json`; its status is 422 where no file can be scored.
        """
        work.enter()
        try:
            async with asyncio.timeout(work.limits.body_seconds):
                sent = await _uploads(request)
            found = await work.run(uploads.answer, sent, holder.served)
            if found["answers"]:
                return JSONResponse(found)
            return JSONResponse({"error": "no file can be scored; `not_scored` has the reason of each", **found}, 422)
        finally:
            work.leave()

    @app.post("/invocations", summary="Predict for a table of samples, as MLflow's server does",
              openapi_extra=mlflow_format.BODY,
              responses={200: mlflow_format.PREDICTIONS, **dict.fromkeys((400, 413, 503, 504), _ERROR)})
    async def invocations(request: Request) -> JSONResponse:
        """JSON in one of MLflow's four formats of a table, with `samples`, `sample_rate_hz`, perhaps `unit_id`."""
        work.enter()
        try:
            async with asyncio.timeout(work.limits.body_seconds):
                body = await _body(request)
            return JSONResponse(await work.run(mlflow_format.answer, body, holder.served))
        finally:
            work.leave()

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether the server answers")
    async def health() -> dict[str, Any]:
        """Always `ok` with status 200 while the server runs, and how many requests are inside."""
        return {"status": "ok", "requests": work.inside}

    @app.get("/version", summary="Which model answers")
    async def version() -> dict[str, Any]:
        """Name, version, hash, data and code of the model, since when it answers, and what to know about it."""
        return holder.served.as_json()


def _add_page(app: FastAPI, holder: Holder) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(STATIC / "docs.html", headers=_HEADERS)

    @app.get("/docs.js", include_in_schema=False)
    async def docs_script() -> Response:
        return FileResponse(STATIC / "docs.js", media_type="text/javascript", headers=_HEADERS)

    @app.api_route("/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(name: str) -> Response:
        served = holder.served
        if name in _POSTED:
            raise HTTPException(405, f"/{name} takes POST; /docs describes it", {"Allow": "POST"})
        if served.page is None:
            raise HTTPException(404, f"no page here: {served.no_page}. The API is described at /docs"
                                if name in ("", "index.html") else "no such address")
        path = served.page / (name or "index.html")
        try:
            found = path.resolve().is_relative_to(served.page.resolve()) and path.is_file()
        except (OSError, ValueError):      # no file can have this name
            found = False
        if not found:
            raise HTTPException(404, "no such address")
        return FileResponse(path, media_type=_MEDIA.get(path.suffix), headers={**_HEADERS, "Cache-Control": "no-cache"})


async def _uploads(request: Request) -> list[Upload]:
    """The files of a request, read no further than `uploads.MAX_BYTES`."""
    kind = request.headers.get("content-type", "")
    _check_length(request)
    if not kind.lower().startswith(ONE_FORM):
        name = request.query_params.get("name", "recording")
        place = request.query_params
        patients, locations = place.getlist("patient_id"), place.getlist("location")
        [(patient, location)] = uploads.check([name], patients, locations)
        return [Upload(name, await _body(request), patient, location)]
    tail = bytearray()
    request._receive = _counted(request, tail)      # the parser reads what is counted
    async with request.form(max_files=uploads.MAX_FILES + 1, max_fields=2 * uploads.MAX_FILES + 2) as form:
        if not bytes(tail).rstrip().endswith(b"--"):      # the parser takes a form without its end for a whole one
            raise BadRequest("the form ends before its last boundary: send it again")
        unknown = sorted(set(form) - {"file", "patient_id", "location"})
        if unknown:
            raise BadRequest(f"unknown field `{unknown[0][:40]}`: a form has `file`, `patient_id` and `location`; "
                             "paths and addresses are not read")
        files = [one for one in form.getlist("file") if isinstance(one, UploadFile)]
        if len(files) < len(form.getlist("file")):
            raise BadRequest("`file` is a text, not a file: send the bytes (curl: -F file=@recording.wav)")
        texts = {name: form.getlist(name) for name in ("patient_id", "location")}
        if any(isinstance(value, UploadFile) for values in texts.values() for value in values):
            raise BadRequest("`patient_id` and `location` are texts, not files")
        given = uploads.check([one.filename or "" for one in files], [str(v) for v in texts["patient_id"]],
                              [str(v) for v in texts["location"]])
        return [Upload(str(one.filename), await one.read(), patient, location)
                for one, (patient, location) in zip(files, given, strict=True)]


def _check_length(request: Request) -> None:
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > uploads.MAX_BYTES:
        raise HTTPException(413, f"{int(stated)} bytes; at most {uploads.MAX_BYTES} are taken")


def _counted(request: Request, tail: bytearray) -> Callable[[], Any]:
    """The request's own `receive`, which refuses too large a body and keeps its last bytes in `tail`."""
    receive, total = request._receive, 0

    async def counted() -> Any:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > uploads.MAX_BYTES:
            raise HTTPException(413, f"more than {uploads.MAX_BYTES} bytes")
        tail.extend(message.get("body", b"")[-_TAIL:])
        del tail[:-_TAIL]
        return message

    return counted


async def _body(request: Request) -> bytes:
    _check_length(request)
    parts, total = [], 0
    async for part in request.stream():
        total += len(part)
        if total > uploads.MAX_BYTES:
            raise HTTPException(413, f"more than {uploads.MAX_BYTES} bytes")
        parts.append(part)
    if not total:
        raise BadRequest("the body is empty: send the bytes of a sound file (curl: --data-binary @recording.wav)")
    return b"".join(parts)


def _add_errors(app: FastAPI) -> None:
    def told(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": words, "notice": NOTICE}, status, headers)

    async def bad(_: Request, error: Exception) -> JSONResponse:
        return told(400, str(error))

    async def busy(_: Request, __: Exception) -> JSONResponse:
        return told(503, "too many requests wait: send it again in a moment", {"Retry-After": "2"})

    async def slow(_: Request, __: Exception) -> JSONResponse:
        return told(504, "it takes too long to arrive or to answer: send fewer or shorter recordings")

    async def gone(_: Request, __: Exception) -> JSONResponse:
        return told(400, "the connection was cut before the request had arrived")

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return told(error.status_code, str(error.detail), dict(error.headers or {}))

    async def fault(_: Request, error: Exception) -> JSONResponse:
        return told(500, f"a fault of this server ({type(error).__name__}); its log has more")

    for kind, answer in ((BadRequest, bad), (MultiPartException, bad), (Busy, busy), (TimeoutError, slow),
                         (ClientDisconnect, gone),
                         (HTTPException, http), (Exception, fault)):
        app.add_exception_handler(kind, answer)


async def _refreshing(holder: Holder, every_s: float) -> None:
    last = [""]

    def say(words: str) -> None:
        if words != last[0]:      # a registry that stays away is told once
            print(f"serve: {words}", file=sys.stderr, flush=True)
        last[0] = words

    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(holder.refresh, say)
