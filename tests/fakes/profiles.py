"""The registries that people pull from, each as a row: what is its own way, and who says so.

Facts only: each habit is one that somebody met and wrote down, under `sources` (GitHub issues and pull requests as
owner/repo#number, source files of clients, documentation). Whatever nobody has written down is as the spec says.

    with Internet() as internet:
        place = internet.place(PROFILES["ghcr.io"], "app")
        place.push("1.0", content, media_type)
        ... internet.mapping, place.asked ...

Every host (registry, token service, storage) is a fake of its own on a port of its own, mapped under its real name, because
only a mapped origin may be on loopback; so redirects, realms and tokens cross origins as they do outside.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from tests.fakes.habits import Habits
from tests.fakes.registry import FakeRegistry
from tests.fakes.storage import Storage

if TYPE_CHECKING:
    from types import TracebackType

    from tests.fakes.server import Fake

# What no client of ours may get to see.
PRIVATE_HEADERS = {"Set-Cookie": "session=upstream-secret; Path=/", "X-Upstream": "upstream-secret"}
BASIC = 'Basic realm="GitHub Package Registry"'


@dataclass(frozen=True)
class Profile:
    """One registry. `repository` and `asked` hold {} for the part of a name that is a test's own."""

    registry: str
    sources: tuple[str, ...]
    habits: Habits
    token: Literal["token", "access_token"] | None = None
    realm_host: str | None = None  # its token service, if it has one of its own
    storage_host: str | None = None
    issuer: str | None = None  # the registry whose token service it names
    behind: tuple[str, str] | None = None  # the registry that has what is elsewhere, and the prefix there
    repository: str = "org/{}"
    public: bool = True

    @property
    def asked(self) -> str:
        """How a client of ours calls a repository."""
        return "{}" if self.registry == "docker.io" else f"{self.registry}/{self.repository}"


_ROWS = (
    Profile(
        "docker.io",
        sources=(
            "distribution/distribution#4354 (library/ in the scope)",
            "jupyterhub/binderhub#1664 (401 for what is not there)",
            "docs.docker.com/docker-hub/usage/pulls (ratelimit-*, GET counts, HEAD does not)",
            "opencontainers/distribution-spec#299 (blob 307 to a CDN)",
            "awslabs/soci-snapshotter#1828 (referrers)",
        ),
        habits=Habits(
            service="registry.docker.io", unknown_repository=401, rate_limit=True, blob_redirect=307
        ),
        token="token",
        realm_host="auth.docker.io",
        storage_host="production.cloudflare.docker.com",
        repository="library/{}",
    ),
    Profile(
        "ghcr.io",
        sources=(
            "cloudflare/serverless-registry#148, oras-project/oras#1128 (placeholder scope)",
            "k0sproject/k0sctl#981 (403 of the token service)",
            "scarf-sh/gateway#35 (blobs to pkg-containers.githubusercontent.com)",
            "dataaxiom/ghcr-cleanup-action#13 (referrers 404)",
            "meziantou/Meziantou.Framework#2190 (pages of tags, relative)",
            "opentofu/opentofu rfc/20241206-oci-registries/1-oci-primer.md (the Link of an unsized page says n=0)",
        ),
        habits=Habits(
            tags_any_size=True,
            service="ghcr.io",
            realm_here=True,
            ping_challenge='Bearer realm="{realm}",service="{service}",scope="repository:user/image:pull"',
            unknown_at_realm=403,
            blob_redirect=307,
            tags_page=4,
            referrers=404,
        ),
        token="token",
        storage_host="pkg-containers.githubusercontent.com",
    ),
    Profile(
        "quay.io",
        sources=(
            "rpardini/docker-registry-proxy#33 (blobs 302 to a signed URL)",
            "deitch/docker_registry2#107 (pages of tags by last, relative)",
        ),
        habits=Habits(service="quay.io", realm="/v2/auth", realm_here=True, blob_redirect=302, tags_page=4),
        token="token",
        storage_host="cdn01.quay.io",
    ),
    Profile(
        "gcr.io",
        sources=(
            "containers/image docker/docker_client.go (401 without a challenge: then that of /v2/)",
            "google/go-containerregistry pkg/v1/remote/transport/ping.go (service before realm)",
            "quay/quay#1906 (401 without a repository in the scope)",
            "ahmetb/serverless-registry-proxy#8 (blobs as Artifact Registry)",
        ),
        habits=Habits(
            service="gcr.io",
            realm="/v2/token",
            realm_here=True,
            challenge="",
            ping_challenge='Bearer service="{service}",realm="{realm}"',
            blob_redirect=302,
            tags_more={"child": [], "manifest": {"sha256:0": {"tag": ["1.0"], "timeCreatedMs": "1"}}},
        ),
        token="token",
    ),
    Profile(
        "us-docker.pkg.dev",
        sources=(
            "ahmetb/serverless-registry-proxy#8, sonatype/nexus-public#1061 (blobs 302, Location relative, no token there)",
            "kubernetes/registry.k8s.io cmd/archeio (public repositories need no token)",
        ),
        habits=Habits(blob_redirect=302),
        repository="project/images/{}",
    ),
    Profile(
        "europe-west1-docker.pkg.dev",
        sources=("as us-docker.pkg.dev: what registry.k8s.io redirects to",),
        habits=Habits(blob_redirect=302),
        repository="k8s-artifacts-prod/images/{}",
    ),
    Profile(
        "registry.k8s.io",
        sources=(
            "kubernetes/registry.k8s.io cmd/archeio/docs/request-handling.md (307 to pkg.dev, blobs 307 to S3)",
            "kubernetes-sigs/promo-tools#1945 (referrers 404)",
        ),
        habits=Habits(elsewhere=frozenset({"manifests", "tags"}), blob_redirect=307, referrers=404),
        storage_host="prod-registry-k8s-io-eu-central-1.s3.dualstack.eu-central-1.amazonaws.com",
        behind=("europe-west1-docker.pkg.dev", "k8s-artifacts-prod/images/"),
        repository="{}",
    ),
    Profile(
        "public.ecr.aws",
        sources=(
            "aws/containers-roadmap#2671, distribution/distribution#4383 (HEAD of a blob 403, GET works)",
            "appgate/sdpctl#404 (token service)",
            "google/go-containerregistry#1091 (n over 1000 is an error)",
        ),
        habits=Habits(
            service="public.ecr.aws",
            realm="/token/",
            realm_here=True,
            blob_head=403,
            blob_redirect=307,
            tags_too_many=1000,
        ),
        token="token",
        storage_host="d5l0dvt14r5h8.cloudfront.net",
    ),
    Profile(
        "mcr.microsoft.com",
        sources=(
            "devcontainers/cli#204, microsoft/containerregistry#168 (no token)",
            "microsoft/containerregistry#45 (data on other hosts)",
        ),
        habits=Habits(blob_redirect=307),
        storage_host="westeurope.data.mcr.microsoft.com",
    ),
    Profile(
        "registry.access.redhat.com",
        sources=(
            "containerd/containerd#3238, ivanilves/lstags#186 (no Docker-Content-Digest)",
            "containerd core/remotes/docker getManifestMediaType (text/plain)",
            "deitch/docker_registry2#107 (pages of tags by last, relative)",
        ),
        habits=Habits(digest_header=False, manifest_type="text/plain; charset=utf-8", tags_page=4),
    ),
    Profile(
        "lscr.io",
        sources=(
            "getwud/wud#143, linkerd/linkerd2#5959 (realm on ghcr.io)",
            "scarf-sh/gateway#35 (the whole API is redirected)",
        ),
        habits=Habits(elsewhere=frozenset({"manifests", "blobs", "tags", "referrers"}), referrers=404),
        token="token",
        issuer="ghcr.io",
        behind=("ghcr.io", ""),
        repository="linuxserver/{}",
    ),
    Profile(
        "registry.gitlab.com",
        sources=("rpardini/docker-registry-proxy#27, docs.gitlab.com (realm on another host: gitlab.com/jwt/auth)",),
        habits=Habits(service="container_registry", realm="/jwt/auth", blob_redirect=307),
        token="token",
        realm_host="gitlab.com",
        storage_host="cdn.registry.gitlab-static.net",
    ),
    Profile(
        "streams.example",
        sources=(
            "distribution/distribution registry/proxy (blobs 200, streamed), and 2.8's lists: all tags at once, no referrers",
            "go-gitea/gitea#24723 (streamed)",
        ),
        habits=Habits(tags_paging="none", referrers=404),
    ),
    Profile(
        "containers.ghe.example",
        sources=("containerd/containerd#5860, distribution/distribution#1485 (HEAD of a manifest 405)",),
        habits=Habits(manifest_head=405),
        token="access_token",
        realm_host="token.ghe.example",
    ),
    Profile(
        "registry.centos.org",
        sources=("containerd/containerd#6684 (HEAD of a manifest 403)",),
        habits=Habits(manifest_head=403),
    ),
    Profile(
        "challenges.example",
        sources=("google/go-containerregistry pickFromMultipleChallenges (several challenges in one line)",),
        habits=Habits(
            service="challenges",
            challenge=(
                'Negotiate, Basic realm="a \\"realm\\", of its own", '
                'bearer SCOPE="{scope}", Service={service} , realm="{realm}", Basic realm=x'
            ),
        ),
        token="access_token",
        realm_host="token.challenges.example",
    ),
    Profile(
        "docker.pkg.github.com",
        sources=("regclient/regclient scheme/reg/auth.go (Basic only)",),
        habits=Habits(challenge=BASIC, ping_challenge=BASIC),
        token="token",
        public=False,
    ),
    Profile(
        "nexus.example",
        sources=("containers/skopeo#2409 (null among the tags)",),
        habits=Habits(tags_nulls=2, referrers_filter=False),
    ),
    Profile(
        "artifactory.example",
        sources=(
            "google/go-containerregistry#1962 (referrers 406), #1691 (403 for a tag that is not there)",
            "containers/skopeo#2346 (digests among the tags)",
        ),
        habits=Habits(unknown_tag=403, referrers=406, tags_digests=(f"sha256:{'0' * 64}", f"sha256:{'1' * 64}")),
    ),
    Profile(
        "quay.example",
        sources=(
            "deitch/docker_registry2#56 (older Quay: pages of tags by an opaque next_page, last is ignored)",
            "TritonDataCenter/node-docker-registry-client#12 (absolute links)",
            "oras-project/artifacts-spec#4 (pages of referrers by a token of the registry's)",
        ),
        habits=Habits(tags_paging="cursor", tags_page=4, absolute_links=True, referrers_page=2),
    ),
    Profile(
        "web.example",
        sources=(
            "sigstore/sigstore-js#1187 (200 for referrers that are not supported)",
            "google/go-containerregistry pkg/v1/remote/referrers.go (a 200 of another type)",
        ),
        habits=Habits(referrers=0),
    ),
    Profile(
        "plain.example",
        sources=("opencontainers/distribution-spec spec.md (and pages of referrers, which it allows)",),
        habits=Habits(referrers_page=2),
    ),
)  # fmt: skip

PROFILES = {row.registry: row for row in _ROWS}


class Place:
    """A repository at a registry, or at the one that stands behind it."""

    def __init__(self, profile: Profile, name: str, front: FakeRegistry) -> None:
        self.profile, self.front = profile, front
        self.asked = profile.asked.format(name)
        self.called = profile.repository.format(name)  # by the front
        self.holder, prefix = front.behind or (front, "")
        self.repository = prefix + self.called
        self._push_to = [(front, self.called)] if self.holder is front else [(front, self.called), self._back]

    @property
    def _back(self) -> tuple[FakeRegistry, str]:
        return self.holder, self.repository

    def push(self, tag: str | None, content: bytes, media_type: str) -> str:
        """A manifest at the registry that holds it. Returns its digest."""
        return self.holder.push(self.repository, tag, content, media_type)

    def push_blob(self, content: bytes) -> str:
        """A blob, which both of two registries have. Returns its digest."""
        (digest,) = {registry.push_blob(repository, content) for registry, repository in self._push_to}
        return digest


class Internet:
    """All of them, each host on loopback, until the block ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._fakes: list[Fake] = []
        self.registries: dict[str, FakeRegistry] = {}
        self.mapping: dict[str, str] = {}
        for row in PROFILES.values():
            self._add(row)

    def _add(self, row: Profile) -> None:
        storage = None
        if row.storage_host is not None:
            storage = Storage()
            self._fakes.append(storage)
            self.mapping[row.storage_host] = storage.base_url
        registry = FakeRegistry(
            token_field=row.token,
            habits=row.habits,
            storage=storage,
            issuer=self.registries[row.issuer] if row.issuer is not None else None,
            behind=(self.registries[row.behind[0]], row.behind[1]) if row.behind is not None else None,
        )
        registry.headers = PRIVATE_HEADERS
        self._fakes.append(registry)
        self.registries[row.registry] = registry
        self.mapping[row.registry] = registry.base_url
        if row.realm_host is not None:
            self.mapping[row.realm_host] = registry.token_url.removesuffix(row.habits.realm)

    def place(self, profile: Profile, name: str) -> Place:
        """The repository of this name at a registry."""
        return Place(profile, name, self.registries[profile.registry])

    def heal(self) -> None:
        """Every host behaves as its habits are."""
        for fake in self._fakes:
            fake.heal()

    def violations(self) -> list[str]:
        """What any host should not have seen since this was last asked."""
        found = [f"{fake.what}: {text}" for fake in self._fakes for text in fake.violations]
        for fake in self._fakes:
            fake.violations.clear()
        return found

    def __enter__(self) -> Self:
        for fake in self._fakes:
            self._stack.enter_context(fake)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)
