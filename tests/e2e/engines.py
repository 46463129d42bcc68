"""The real components: container engines, and a registry to pull from. Each starts from an empty folder and leaves nothing.

Unix socket paths are limited to 108 characters, so the folders that are handed in must be short.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import requests

from tests.e2e.processes import Process, Said, StartFailed, environment, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

START_S = 40
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "skopeo": "skopeo",
    "docker-registry": "docker-registry",
}


def missing(*commands: str) -> str | None:
    """A sentence that says what to install, or None if all is there."""
    for command in commands:
        if shutil.which(command) is None:
            return f"{command} is not installed; it is in the Debian package {PACKAGES[command]}"
    if os.geteuid() != 0 and set(commands) & {"dockerd", "containerd", "podman"}:
        return f"{commands[0]} needs root here"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Registry:
    """distribution's registry: a real upstream. Everybody may push."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        for attempt in range(3):  # a free port may be taken by somebody else before it is used
            try:
                self._start(folder, free_port())
            except StartFailed:
                if attempt == 2:
                    raise
            else:
                break

    def _start(self, folder: Path, port: int) -> None:
        settings = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
        self.url = f"http://127.0.0.1:{port}"
        self.host = f"localhost:{port}"
        command: list[str | Path] = ["docker-registry", "serve", folder / "config.yml"]
        self.process = Process(command, folder / "docker-registry.log", environment())
        try:
            self.process.wait_until(lambda: _answers(f"{self.url}/v2/"), START_S)
        except StartFailed:
            self.process.end()
            raise

    def end(self) -> None:
        self.process.end()


class Docker:
    """The Docker engine with its classic image store: it asks for a tag by HEAD and then by GET."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._env = environment(DOCKER_CONFIG=str(folder), HOME=str(folder), DOCKER_HOST=f"unix://{folder}/docker.sock")
        command: list[str | Path] = ["dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs"]
        command += ["--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
        command += ["-H", f"unix://{folder}/docker.sock", "--insecure-registry", "127.0.0.0/8"]
        self.process = Process(command, folder / "dockerd.log", self._env)
        try:
            self.process.wait_until(lambda: self.run("version", "--format", "{{.Server.Version}}").code == 0, START_S)
        except StartFailed:
            self.end()
            raise

    def run(self, *arguments: str) -> Said:
        return run(["docker", *arguments], self._env)

    def pull(self, reference: str) -> Said:
        return self.run("pull", reference)

    def end(self) -> None:
        self.process.end(20)
        with suppress(OSError, ValueError):  # its own containerd outlives a killed engine; normally the file is gone
            os.kill(int((self._folder / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)


class Containerd:
    """containerd, as Kubernetes uses it: it asks for a tag by HEAD alone, and then by digest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._socket = folder / "c.sock"
        (folder / "config.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        command: list[str | Path] = ["containerd", "--config", folder / "config.toml", "--address", self._socket]
        command += ["--root", folder / "root", "--state", folder / "state"]
        self.process = Process(command, folder / "containerd.log", environment(HOME=str(folder)))
        try:
            self.process.wait_until(lambda: self.run("version").code == 0, START_S)
        except StartFailed:
            self.end()
            raise

    def run(self, *arguments: str) -> Said:
        return run(["ctr", "--address", self._socket, *arguments])

    def pull(self, reference: str) -> Said:
        return self.run("images", "pull", "--plain-http", "--snapshotter", "native", reference)

    def end(self) -> None:
        self.process.end(20)


class Podman:
    """podman (containers/image): it asks for a tag by GET and hashes what it gets. No daemon."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._env = policy(folder)

    def run(self, *arguments: str) -> Said:
        places: list[str | Path] = ["--root", self._folder / "root", "--runroot", self._folder / "run"]
        places += ["--tmpdir", self._folder / "tmp"]
        return run(["podman", "--storage-driver=vfs", *places, *arguments], self._env)

    def pull(self, reference: str) -> Said:
        return self.run("pull", "--tls-verify=false", reference)


class Skopeo:
    """skopeo (containers/image) looks at an image without pulling it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._env = policy(folder)

    def inspect(self, reference: str) -> Said:
        return run(["skopeo", "inspect", "--no-tags", "--tls-verify=false", f"docker://{reference}"], self._env)


def policy(folder: Path) -> dict[str, str]:
    """An environment in which containers/image reads nothing of the user's own settings."""
    (folder / "registries.conf").write_text("unqualified-search-registries = []\n")
    containers = folder / ".config/containers"
    containers.mkdir(parents=True)
    (containers / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return environment(
        HOME=str(folder), XDG_RUNTIME_DIR=str(folder), CONTAINERS_REGISTRIES_CONF=str(folder / "registries.conf")
    )


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


__all__ = ["Containerd", "Docker", "Podman", "Registry", "Skopeo", "free_port", "missing", "wait_until"]
