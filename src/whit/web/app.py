"""The answers of the page's server, all to GET and HEAD, all read-only.

`/` is the page, `/page/{name}` its other files, from a fixed list; `/runs/{id}/report` the report
of a run as HTML. All else is JSON. An id is a digest of a folder's path, so nothing in an address
names a file. What a run holds was perhaps written by a stranger: the page shows all of it as text.

    /api/runs
        whit        version
        roots       [path]: the folders that are looked through
        is_whole    false where there are more runs than are shown (5,000)
        runs        [{id, path, name, seed, state, message, params, epochs, correct, total,
                      verdict, study, split, seconds, changed, own_model, has_weights}]
        studies     [{id, path, name, runs: [id], split, finished, judged, met, mean, sd,
                      lowest, highest, params, epochs}]

`state` is finished, diverged, running, stopped or damaged; of a damaged run `message` says what is
wrong and the rest may be null. `epochs` are done, not planned. `correct` of `total` images of
`split` (test or val) after the last epoch, null before. `study` is the id of a study, or null.
`seconds` in all; `changed` in seconds since 1970. `own_model`: the model is a user's own file.
`has_weights`: its network and its errors can be asked for. A study is a folder of seeds, also that
of a trial; `mean`, `sd`, `lowest` and `highest` are percent over its `finished` runs (null without
any), `met` how many of `judged` meet the budget (null: open).

    /api/runs/{id}
        id, path, name, description, seed, state, study, split, own_model, changed
        recipe      the TOML text of the complete recipe
        model, data, epochs_planned
        budget      {params, epochs, accuracy, require, forbid}: limits as text, or null
        log         [{epoch, images_seen, steps, lr, loss, correct, total, seconds,
                      evaluations: [{split, correct, total, loss, seconds}]}]
        result      null, or {verdict, violations: [{rule, limit, value, message}], params, epochs,
                      test: {correct, total, accuracy, loss, reads, selected_on_test},
                      best_epoch: {epoch, correct, split} or null, seconds: {train, total},
                      images_seen, seed, weights_sha256, diverged, notes}
        owner       null, or {host, pid, since, alive}: alive is null for another machine's
        environment {whit, torch, system, processor, cores, threads, device, code, command}
        why_no_network   null where the run has weights, else why not

    /api/runs/{id}/network    the folded network of a finished run: whit.export.html.graph_json
    /api/runs/{id}/errors
        split, total, correct, classes: [name], shape: [C, H, W]
        errors      [{index, true, predicted, probabilities: [K], disputed, pixels}]: worst first,
                    300 at most; pixels are base64 of uint8 in the order C, H, W

Every answer to an error is {error: text}: 400 not HTTP, 403 another host, another origin or a
user's own model file, 404 unknown or deleted, 405 not GET, 409 damaged or without what is asked
for, 413 a body of more than 64 KiB, 500 a fault of whit or of its process for slow answers, 503
while the server ends. All other answers have an ETag and are 304 to a request that names it.
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
from whit.web.answering import Answering, Body, Refused
from whit.web.rows import names_a_file, own_model_refusal
from whit.web.shelf import Deleted, Place, Shelf, is_id

_JSON = "application/json; charset=utf-8"
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": _JSON,
}
# A report is one file that brings its styles and pictures along, and runs nothing.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Application:
    """The answers, one method an address."""

    def __init__(self, shelf: Shelf, answering: Answering):
        self.shelf = shelf
        self.answering = answering
        self.files = page_files()
        self._looking = asyncio.Lock()
        self._list: tuple[dict[str, Any], Body] | None = None

    async def page(self, request: Request) -> Response:
        return self._file(request, "index.html")

    async def file(self, request: Request) -> Response:
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        if name not in self.files:
            raise HTTPException(404)
        return _answer(request, self.files[name], _KINDS[name.rpartition(".")[2]])

    async def runs(self, request: Request) -> Response:
        return _answer(request, await self.listed())

    async def run(self, request: Request) -> Response:
        place = await self._place(request)
        value = await asyncio.to_thread(self.shelf.details, place)
        return _answer(request, _body(value))

    async def network(self, request: Request) -> Response:
        return _answer(request, await self._asked(request, "network"))

    async def errors(self, request: Request) -> Response:
        return _answer(request, await self._asked(request, "errors"))

    async def report(self, request: Request) -> Response:
        body = await self._asked(request, "report")
        answer = _answer(request, body, _KINDS["html"])
        answer.headers["content-security-policy"] = REPORT_POLICY
        return answer

    async def listed(self) -> Body:
        """Return the list of runs as it is now."""
        async with self._looking:  # on the loop: who waits for the list holds no thread
            value = await asyncio.to_thread(self.shelf.look)
        if self._list is None or self._list[0] is not value:
            self._list = value, _body({"whit": version("whit"), **value})
        return self._list[1]

    async def _place(self, request: Request) -> Place:
        id = request.path_params["id"]
        if not is_id(id):
            raise HTTPException(404)
        place = self.shelf.known(id)
        if place is None:
            await self.listed()  # it may have just been made
            place = self.shelf.known(id)
        if place is None:
            raise HTTPException(404, "no run has this id.")
        return place

    async def _asked(self, request: Request, what: str) -> Body:
        place = await self._place(request)
        run = await asyncio.to_thread(place.read)
        is_own = names_a_file(run)
        if is_own and not self.answering.own_models:
            raise Refused(403, own_model_refusal(run.recipe.model.name))
        return await self.answering.ask(what, place, keep=not is_own)


def application(answers: Application) -> Starlette:
    """Return the routes to the answers, as an ASGI application."""
    addresses: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/": answers.page,
        "/page/{name}": answers.file,
        "/api/runs": answers.runs,
        "/api/runs/{id}": answers.run,
        "/api/runs/{id}/network": answers.network,
        "/api/runs/{id}/errors": answers.errors,
        "/runs/{id}/report": answers.report,
    }
    made = Starlette(
        routes=[Route(path, endpoint) for path, endpoint in addresses.items()],
        exception_handlers={
            HTTPException: _http_error,
            Refused: _refused,
            Deleted: _deleted,
            InputError: _damaged,
        },
    )
    made.router.redirect_slashes = False
    return made


def page_files() -> dict[str, Body]:
    """Return the files of the page by name, read once: no address ever names a file on disk.

    They are its own, and those that it shares with a network exported as one HTML file.
    """
    found = {}
    for part, kinds in (("export/html/static", {"css", "js"}), ("web/page", set(_KINDS))):
        folder = resources.files("whit").joinpath(*part.split("/"))
        for entry in folder.iterdir():
            if entry.name.rpartition(".")[2] in kinds and entry.is_file():
                found[entry.name] = Body.of(entry.read_bytes())
    return found


def _answer(request: Request, body: Body, kind: str = _JSON) -> Response:
    """Return 200 with the body, or 304 to somebody who has it."""
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    if body.tag in tags or "*" in tags:
        return Response(status_code=304, headers={"etag": body.tag})
    return Response(body.content, headers={"etag": body.tag, "content-type": kind})


def _body(value: Any) -> Body:
    return Body.of(json.dumps(value, allow_nan=False, separators=(",", ":")).encode())


def _error(status: int, said: str) -> Response:
    content = json.dumps({"error": said}).encode()
    return Response(content, status, headers={"content-type": _JSON})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = error.detail
    if error.status_code == 404 and said == "Not Found":
        said = "nothing has this address."
    return _error(error.status_code, said)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, str(error))


async def _deleted(request: Request, error: Exception) -> Response:
    return _error(404, str(error))


async def _damaged(request: Request, error: Exception) -> Response:
    return _error(409, str(error))
