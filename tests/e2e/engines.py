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
from types import MappingProxyType
from typing import TYPE_CHECKING

import grpc  # type: ignore[import-untyped]
import requests

from tests.e2e.processes import Process, Said, StartFailed, environment, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NONE: Mapping[str, str] = MappingProxyType({})
START_S = 40
CALL_S = 60
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
}
# Pulls by CRI and by `ctr`, also where overlays cannot be mounted. The first part is containerd 1's, the second 2's.
CONTAINERD = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{hosts}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{hosts}"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "native"
"""


def missing(*commands: str) -> str | None:
    """A sentence that says what to install, or None if all is there."""
    for command in commands:
        if shutil.which(command) is None:
            return f"{command} is not installed; it is in the Debian package {PACKAGES[command]}"
    if os.geteuid() != 0 and set(commands) & {"dockerd", "containerd", "podman", "buildah"}:
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

    def __init__(self, folder: Path, settings: str = "{}", env: Mapping[str, str] = NONE) -> None:
        """`settings` is its daemon.json."""
        folder.mkdir()
        self._folder = folder
        self._env = environment(DOCKER_CONFIG=str(folder), HOME=str(folder), DOCKER_HOST=f"unix://{folder}/docker.sock")
        (folder / "daemon.json").write_text(settings)
        command: list[str | Path] = ["dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs"]
        command += ["--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
        command += ["-H", f"unix://{folder}/docker.sock", "--insecure-registry", "127.0.0.0/8"]
        command += ["--config-file", folder / "daemon.json"]
        self.process = Process(command, folder / "dockerd.log", {**self._env, **env})
        try:
            self.process.wait_until(lambda: self.run("version", "--format", "{{.Server.Version}}").code == 0, START_S)
        except StartFailed:
            self.end()
            raise

    def run(self, *arguments: str, program: str = "docker", **env: str) -> Said:
        return run([program, *arguments], {**self._env, **env}, cwd=self._folder)

    def write(self, name: str, text: str) -> None:
        """A file in the folder in which its client runs."""
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_text(text)

    def pull(self, reference: str) -> Said:
        return self.run("pull", reference)

    def end(self) -> None:
        self.process.end(20)
        with suppress(OSError, ValueError):  # its own containerd outlives a killed engine; normally the file is gone
            os.kill(int((self._folder / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)


class Containerd:
    """containerd, as Kubernetes uses it: it asks for a tag by HEAD alone, and then by digest."""

    def __init__(self, folder: Path, programs: Path | None = None, env: Mapping[str, str] = NONE) -> None:
        """`programs`: the folder of another containerd and its ctr. `hosts` is where it looks for hosts.toml."""
        folder.mkdir()
        self._folder = folder
        self._socket = folder / "c.sock"
        self._ctr = programs / "ctr" if programs is not None else "ctr"
        self.hosts = folder / "certs.d"
        self._env = environment(CONTAINERD_ADDRESS=str(self._socket), CONTAINERD_SNAPSHOTTER="native", **env)
        (folder / "config.toml").write_text(CONTAINERD.format(hosts=self.hosts))
        containerd = programs / "containerd" if programs is not None else "containerd"
        command: list[str | Path] = [containerd, "--config", folder / "config.toml", "--address", self._socket]
        command += ["--root", folder / "root", "--state", folder / "state"]
        self.process = Process(command, folder / "containerd.log", environment(HOME=str(folder), **env))
        try:
            self.process.wait_until(
                lambda: self.run("version").code == 0 and not self._call("ListImages", b"").code, START_S
            )
        except StartFailed:
            self.end()
            raise

    def run(self, *arguments: str) -> Said:
        return run([self._ctr, *arguments], self._env, cwd=self._folder)

    def pull(self, reference: str) -> Said:
        return self.run("images", "pull", "--plain-http", reference)

    def kubelet_pulls(self, image: str) -> Said:
        """What kubelet asks for a Pod's `image:`."""
        return self._call("PullImage", _message(_message(image.encode())))  # PullImageRequest.image.image

    def _call(self, method: str, request: bytes) -> Said:
        """A call of Kubernetes' runtime interface (CRI, runtime.v1.ImageService)."""
        with grpc.insecure_channel(f"unix://{self._socket}") as channel:
            try:
                channel.unary_unary(f"/runtime.v1.ImageService/{method}")(request, timeout=CALL_S)
            except grpc.RpcError as error:
                return Said(1, "", f"{error.details()}\n")
        return Said(0, "", "")

    def end(self) -> None:
        self.process.end(20)


def _message(content: bytes) -> bytes:
    """A protobuf message that has only its field 1, of a type with a length."""
    length = [len(content)] if len(content) < 128 else [len(content) & 127 | 128, len(content) >> 7]
    return bytes([1 << 3 | 2, *length]) + content


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False
