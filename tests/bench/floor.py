"""What the framework costs before it does anything of ours: two functions for functions-framework.

`hello` answers and nothing else. `relay` asks the upstream once, over a kept connection of each thread through http.client:
the least that a service can do that looks at the upstream for every request, and no check of any kind.
"""

from __future__ import annotations

import http.client
import os
import threading

import flask
import functions_framework

_mine = threading.local()


@functions_framework.http
def hello(_: flask.Request) -> flask.Response:
    """One short answer."""
    return flask.Response(b"", content_type="text/plain")


@functions_framework.http
def relay(request: flask.Request) -> flask.Response:
    """The same, after one HEAD."""
    connection = getattr(_mine, "connection", None)
    if connection is None:
        connection = _mine.connection = http.client.HTTPConnection(os.environ["FLOOR_UPSTREAM"], timeout=10)
    connection.request("HEAD", request.path)
    response = connection.getresponse()
    response.read()
    return flask.Response(b"", status=response.status, content_type="text/plain")
