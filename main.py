"""The HTTP function: hands each request to the app. `functions-framework --target tlogistry` starts it."""

from __future__ import annotations

import os
import sys

import flask
import functions_framework
import gunicorn.config  # type: ignore[import-untyped]
import gunicorn.http.message  # type: ignore[import-untyped]

from lib.app import App
from lib.config import Config
from lib.errors import ConfigInvalid
from lib.telemetry import Telemetry

REQUEST_LINE_MAX = 262_144  # bytes; far longer than any that is right, so that those are refused as JSON

try:
    _config = Config.from_env(os.environ)
    _telemetry = Telemetry(_config.log_format, project=_config.project)
    _app = App(_config, _telemetry)
except ConfigInvalid as error:
    for problem in error.problems:
        print(f"tlogistry: {problem}", file=sys.stderr)  # noqa: T201 - before there is a log
    sys.exit(2)
if _config.log_format == "json":  # people have read it before they typed `make run`
    _app.say_started(_config, os.environ.get("K_REVISION"))
# The framework's app, while it loads this file: `GET http://HOST`, without a path, is for us to refuse, not for it to redirect.
if flask.has_app_context():
    flask.current_app.url_map.strict_slashes = False
# What functions-framework has no option for. It turns gunicorn's limit on the request line off, so that a line without end is
# gathered, and read from its beginning at each piece; and gunicorn believes a peer on loopback a SCRIPT_NAME.
gunicorn.http.message.MAX_REQUEST_LINE = REQUEST_LINE_MAX
gunicorn.config.LimitRequestLine.validator = staticmethod(lambda _: REQUEST_LINE_MAX)
gunicorn.config.ForwardedAllowIPS.default = ""


@functions_framework.http
def tlogistry(request: flask.Request) -> flask.Response:
    """Answer one request."""
    return _app.handle(request)


@functions_framework.errorhandler(400)  # type: ignore[untyped-decorator]
@functions_framework.errorhandler(404)  # type: ignore[untyped-decorator]
def reserved_path(_: Exception) -> flask.Response:
    """What the framework keeps for itself, `/robots.txt` and a `Host` that is none (`.`): JSON like any other unknown path."""
    return _app.unknown_path()
