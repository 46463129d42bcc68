"""Clients that need no daemon, each with an empty home, so that nothing of the user's own settings is read.

    crane = Client(folder, "crane")
    crane.run("pull", "localhost:8080/my-user/my-app:v1.2.3", "app.tar")
    podman = Containers(folder, "podman")

The words are what a user types after the program's name; what has to be otherwise in a test is in the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.processes import Said, environment, run

if TYPE_CHECKING:
    from pathlib import Path

# In the form that the manual page containers-storage.conf has
STORAGE = """[storage]
driver = "vfs"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""


class Client:
    """A program that is started for each request, in a folder of its own."""

    program: str | Path

    def __init__(self, folder: Path, program: str | Path, **env: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.program = program
        self._env = environment(HOME=str(folder), XDG_RUNTIME_DIR=str(folder), TMPDIR=str(folder), **env)

    def run(self, *words: str, **env: str) -> Said:
        return run([self.program, *words], {**self._env, **env}, cwd=self.folder, merged=True)


class Containers(Client):
    """podman, buildah and skopeo, which share a library (containers/image), its settings and its storage's.

    All of them read a user's own settings; skopeo 1.9 reads no CONTAINERS_REGISTRIES_CONF.
    """

    def __init__(self, folder: Path, program: str, **env: str) -> None:
        super().__init__(folder, program, CONTAINERS_STORAGE_CONF=str(folder / "storage.conf"), **env)
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        self._settings = folder / ".config/containers"
        self._settings.mkdir(parents=True)
        (self._settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.registries("")

    def pull(self, reference: str) -> Said:
        """With podman."""
        return self.run("pull", "--tls-verify=false", reference)

    def inspect(self, reference: str) -> Said:
        """With skopeo, which looks at an image without pulling it."""
        return self.run("inspect", "--no-tags", "--tls-verify=false", f"docker://{reference}")

    def registries(self, conf: str) -> None:
        """The user's own registries.conf from now on, which is read in place of the machine's."""
        (self._settings / "registries.conf").write_text(f"unqualified-search-registries = []\n{conf}")
