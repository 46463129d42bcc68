"""The function under functions-framework and gunicorn, as it is deployed, in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[1]
START_S = 60  # eight at once, on busy cores


class Answer(NamedTuple):
    """One HTTP answer; `length` is the Content-Length header."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error code of a refusal, whose shape is checked on the way."""
        parsed = json.loads(self.body)
        assert list(parsed) == ["errors"]
        (error,) = parsed["errors"]
        assert {"code", "message"} <= error.keys() <= {"code", "message", "detail"}
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["errors"][0]["message"])


class Function:
    """Runs until the block ends; `lines` is what it printed."""

    def __init__(self, settings: Mapping[str, str] | Callable[[int], Mapping[str, str]], *, threads: int = 128) -> None:
        self._keeps = socket.socket()  # bound and never listening: nobody else is given the port before it is used
        self._keeps.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeps.bind(("127.0.0.1", 0))
        self.port = self._keeps.getsockname()[1]
        keep = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
        settings = settings(self.port) if callable(settings) else settings
        self._env = {**keep, **settings, "PORT": str(self.port), "HOST": "127.0.0.1", "THREADS": str(threads)}
        self._env.update(FUNCTION_TARGET="tlogistry", PYTHONUNBUFFERED="1")
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "functions_framework", "--source", str(ROOT / "main.py")]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + START_S
        while True:
            try:
                assert self.ask("GET", "/livez").status == 200
            except OSError:
                assert time.monotonic() < until, f"did not start: {self.lines}"
                assert self.process.poll() is None, f"ended: {self.lines}"
                time.sleep(0.05)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._keeps.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Bytes as they are, and all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(request)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
            return answer
