"""The routes of the page's server: GET and HEAD only, all read-only.

`/` is the page, `/page/{name}` its other files, from a fixed list; `/runs/{id}/report` the report
of a run as HTML. Everything else is JSON. An id is a digest of a folder's path, so no URL names a
file. The files of a run are untrusted input: the page shows all of them as text.

    /api/runs
        whit        version
        roots       [path]: the folders that are searched
        is_complete false where there are more runs than are listed (5,000)
        trust_model_files   whether the code of models that are a user's own files is executed
        runs        [{id, path, name, seed, state, message, params, epochs, correct, total,
                      verdict, study, split, seconds, changed, differs, data, user_model,
                      has_weights}]
        studies     [{id, path, name, runs: [id], data, split, finished, judged, met, mean, sd,
                      min, max, params, epochs}]

`state` is finished, diverged, running, stopped, edited or damaged; of a damaged run `message` is
the error and the rest may be null. An edited one was altered after the run, as `message` says, and
nothing of its result and log is returned. `differs`: what distinguishes it from most other runs.
`epochs` are done, not planned. `correct` of `total` images of `split` (test or val) after the last
epoch, null before. `study` is the id of a study, or null. `seconds` in total; `changed` in seconds
since 1970. `data`: name of the data set. `user_model`: the model is a user's own file.
`has_weights`: its network and its errors can be requested. A study is a folder of seeds, also that
of a trial; `mean`, `sd`, `min` and `max` are percent over its `finished` runs (null without any),
`met` how many of `judged` meet the budget (null: pending).

    /api/runs/{id}
        id, path, name, description, seed, state, study, split, user_model, changed
        recipe      the TOML text of the complete recipe
        model, data, epochs_planned
        budget      {params, epochs, accuracy, require, forbid}: limits as text, or null
        log         [{epoch, images_seen, steps, lr, loss, correct, total, seconds,
                      evaluations: [{split, correct, total, loss, seconds}]}]
        result      null, or {verdict, violations: [{rule, limit, value, message}], params, epochs,
                      test: {correct, total, accuracy, loss, reads, selected_on_test},
                      best_epoch: {epoch, correct, split} or null, seconds: {train, total},
                      images_seen, seed, weights_sha256, diverged, notes}
        lock_holder null, or {host, pid, since, alive}: alive is null on another machine
        environment {whit, torch, system, processor, cores, threads, device, code, command}
        network_problem   null where the run has weights, else the reason

    /api/runs/{id}/network    the folded network of a finished run: whit.export.html.graph_json
    /api/runs/{id}/errors
        split, total, correct, classes: [name], shape: [C, H, W]
        errors      [{index, true, predicted, probabilities: [K], disputed, pixels}]: worst first,
                    300 at most; pixels are base64 of uint8 in the order C, H, W

An error is {error: text}, or an HTML page for a browser that navigates (Accept: text/html). 400:
not HTTP; 403: another host or origin, or a user's own model file; 404: unknown or deleted; 405: not
GET; 409: damaged, or without the requested part; 413: a body of more than 64 KiB; 500: an internal
error; 503: shutting down. All other responses have an ETag and are 304 to a request that names it.

`/page/columns.json` describes the columns of the list: whit.runs.listing.page_columns.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from whit.errors import InputError
from whit.recipes.model_ref import is_model_path
from whit.runs.listing import page_columns
from whit.web.error_page import encode_error
from whit.web.payloads import user_model_refusal
from whit.web.run_index import RunIndex, is_id
from whit.web.run_location import RunDeleted, RunLocation
from whit.web.worker_client import CachedResponse, HTTPRefusal, WorkerClient

_JSON = "application/json; charset=utf-8"
_CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": _JSON,
}
# A report is one file with its styles and pictures in it, and runs no script.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Application:
    """The endpoints, one method each."""

    def __init__(self, index: RunIndex, client: WorkerClient):
        self.index = index
        self.client = client
        self.files = page_files()
        self._refresh_lock = asyncio.Lock()
        self._list: tuple[dict[str, Any], CachedResponse] | None = None

    async def page(self, request: Request) -> Response:
        return self._file(request, "index.html")

    async def file(self, request: Request) -> Response:
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        if name not in self.files:
            raise HTTPException(404)
        return _respond(request, self.files[name], _CONTENT_TYPES[name.rpartition(".")[2]])

    async def runs(self, request: Request) -> Response:
        return _respond(request, await self.list_runs())

    async def run(self, request: Request) -> Response:
        location = await self._locate(request)
        return _respond(request, _encode(await asyncio.to_thread(self.index.details, location)))

    async def network(self, request: Request) -> Response:
        return _respond(request, await self._request_worker(request, "network"))

    async def errors(self, request: Request) -> Response:
        return _respond(request, await self._request_worker(request, "errors"))

    async def report(self, request: Request) -> Response:
        body = await self._request_worker(request, "report")
        response = _respond(request, body, _CONTENT_TYPES["html"])
        response.headers["content-security-policy"] = REPORT_POLICY
        return response

    async def list_runs(self) -> CachedResponse:
        """Return the list of runs as it is now."""
        async with self._refresh_lock:  # not in the thread: requests that wait hold none
            value = await asyncio.to_thread(self.index.refresh)
        if self._list is None or self._list[0] is not value:
            head = {"whit": version("whit"), "trust_model_files": self.client.trust_models}
            self._list = value, _encode({**head, **value})
        return self._list[1]

    async def _locate(self, request: Request) -> RunLocation:
        id = request.path_params["id"]
        location = self.index.lookup(id)
        if location is None and is_id(id):
            await self.list_runs()  # it may be new
            location = self.index.lookup(id)
        if location is None:
            raise HTTPException(404, "no run has this id; it may have been deleted.")
        return location

    async def _request_worker(self, request: Request, what: str) -> CachedResponse:
        location = await self._locate(request)
        run = await asyncio.to_thread(location.read)
        is_user = is_model_path(run.recipe.model.name)
        if is_user and not self.client.trust_models:
            raise HTTPRefusal(403, user_model_refusal(run.recipe.model.name))
        return await self.client.request(what, location, cache=not is_user)


def build_app(application: Application) -> Starlette:
    """Return the routes to the endpoints, as an ASGI application."""
    endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/": application.page,
        "/page/{name}": application.file,
        "/api/runs": application.runs,
        "/api/runs/{id}": application.run,
        "/api/runs/{id}/network": application.network,
        "/api/runs/{id}/errors": application.errors,
        "/runs/{id}/report": application.report,
    }
    app = Starlette(
        routes=[Route(path, endpoint) for path, endpoint in endpoints.items()],
        exception_handlers=dict.fromkeys(
            (HTTPException, HTTPRefusal, RunDeleted, InputError), _handle_error
        ),
    )
    app.router.redirect_slashes = False
    return app


def page_files() -> dict[str, CachedResponse]:
    """Return the files of the page by name, read once: no URL ever names a file on disk.

    They include those that the page shares with a network exported as one HTML file.
    """
    files = {"columns.json": _encode(page_columns())}
    for part, kinds in (("export/html/static", {"css", "js"}), ("web/static", set(_CONTENT_TYPES))):
        folder = resources.files("whit").joinpath(*part.split("/"))
        for entry in folder.iterdir():
            if entry.name.rpartition(".")[2] in kinds and entry.is_file():
                files[entry.name] = CachedResponse.from_bytes(entry.read_bytes())
    return files


def _respond(request: Request, body: CachedResponse, content_type: str = _JSON) -> Response:
    """Return 200 with the body, or 304 to a request that has it."""
    header = request.headers.get("if-none-match", "")
    etags = {etag.strip().removeprefix("W/") for etag in header.split(",")}
    if body.etag in etags or "*" in etags:
        return Response(status_code=304, headers={"etag": body.etag})
    return Response(body.content, headers={"etag": body.etag, "content-type": content_type})


def _encode(value: Any) -> CachedResponse:
    content = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return CachedResponse.from_bytes(content)


async def _handle_error(request: Request, error: Exception) -> Response:
    status, message = 409, str(error)  # InputError: a damaged run
    if isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
        if status == 404 and message == "Not Found":
            message = "this address does not exist."
    elif isinstance(error, HTTPRefusal | RunDeleted):
        status = error.status
    content, content_type = encode_error(status, message, request.headers.get("accept", ""))
    return Response(content, status, headers={"content-type": content_type})
