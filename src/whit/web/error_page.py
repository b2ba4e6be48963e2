"""An error as JSON, or as a page for a browser that navigates."""

from __future__ import annotations

import json
import re
from html import escape
from http import HTTPStatus

INTERNAL_ERROR = "internal error; the terminal of `whit serve` shows the details. Please report it."

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>whit: {title}</title>
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/draw.css">
<link rel="stylesheet" href="/page/page.css">
</head>
<body>
<header>
<h1>whit</h1>
<nav aria-label="Views"><a href="/#draw">Draw</a> <a href="/#runs">Runs</a> \
<a href="/#errors">Errors</a></nav>
</header>
<main>
<h2>{title}</h2>
<p>{message}</p>
</main>
</body>
</html>
"""


def encode_error(status: int, message: str, accept: str) -> tuple[bytes, str]:
    """Return the body of an error response, and its content type.

    `accept` is that header of the request: a browser that navigates accepts HTML.
    """
    if "text/html" not in accept.lower():
        return json.dumps({"error": message}).encode(), "application/json; charset=utf-8"
    title = f"{status} {HTTPStatus(status).phrase}"
    if message.split(" ", 1)[0].isalpha():  # a path keeps its case
        message = message[:1].upper() + message[1:]
    sentence = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(message))
    return _PAGE.format(title=title, message=sentence).encode(), "text/html; charset=utf-8"
