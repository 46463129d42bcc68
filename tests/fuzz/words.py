"""The words of each language that is fuzzed, to put into cases: without them, chance would have to write `Bearer`."""

from __future__ import annotations

from lib.oci.manifest import MEDIA_TYPES
from tests.fuzz.upstream import BLOB, sha256

NEXT = b"\n----\n"  # between one answer and the next
HOSTS = (
    b"docker.io",
    b"index.docker.io",
    b"registry-1.docker.io",
    b"localhost:5000",
    b"ghcr.io",
    b"library/",
    b":443",
    b"127.1",
)
PARTS = (
    *HOSTS,
    b"/v2/",
    b"/manifests/",
    b"/blobs/",
    b"/tags/list",
    b"/referrers/",
    b"sha256:" + b"a" * 64,
    b"/sightings/",
    b"r/",
)
QUERY = (b"?ns=", b"&n=", b"last=", b"artifactType=", b"ns=docker.io", b"%6es=")
AUTH = (
    b"Bearer ",
    b"Basic ",
    b'realm="',
    b"service=",
    b'scope="',
    b"https://auth.docker.io/token",
    b"Negotiate",
    b'\\"',
    b", ",
)
LINK = (b"</v2/a/tags/list?n=1&last=b>", b'; rel="next"', b"rel=", b"; ", b", ", b"REL*=UTF-8''next", b'title=","')
SETTING = (
    *(
        b"TLOGISTRY_UPSTREAMS=",
        b"TLOGISTRY_IDENTITIES=",
        b"TLOGISTRY_STORE=",
        b"TLOGISTRY_DEADLINE=",
        b"TLOGISTRY_TRUST=",
    ),
    *(b"TLOGISTRY_LOG_SEARCH=off", b"TLOGISTRY_LOG_FORMAT=line", b"TLOGISTRY_CREDENTIALS_SECRET=", b"THREADS=", b"\n"),
    *(b"TLOGISTRY_NEW_TAGS_PER_CLIENT=500/60s", b"TLOGISTRY_NEW_TAGS_PER_DAY=", b"TLOGISTRY_FORWARDED_HOPS=1"),
    *(b'TLOGISTRY_ALLOW_UPSTREAMS=["*.example.com"]', b"TLOGISTRY_DENY_UPSTREAMS=", b"TLOGISTRY_OWN_HOSTS=", b"*."),
    *(
        b"TLOGISTRY_SECRET_MANAGER_ENDPOINT=",
        b"FIRESTORE_EMULATOR_HOST=",
        b"http://127.0.0.1:1",
        b"projects/my-project/",
    ),
)
DOCUMENT = (
    b"schemaVersion",
    b"mediaType",
    b"manifests",
    b"layers",
    b"config",
    b"digest",
    *map(str.encode, MEDIA_TYPES),
)

REQUEST = (
    *(
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"OPTIONS ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"\r\n\r\n",
        b"Host: a\r\n",
        b"/v2/",
        b"%3a",
    ),
    *(
        b"/manifests/1.0",
        b"/manifests/latest",
        b"/blobs/",
        b"/tags/list",
        b"/referrers/",
        b"/sightings/",
        sha256(BLOB).encode(),
    ),
    *(
        b"docker.io/",
        b"index.docker.io/",
        b"open.example:8443/",
        b"scripted.example/",
        b"library/alpine",
        b"my-user/my-app",
        b"r/",
    ),
    *(b"?ns=docker.io", b"&ns=", b"?n=1&last=", b"Range: bytes=0-1\r\n", b"If-Range: x\r\n", b"Via: 1.1 tlogistry\r\n"),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"X-Forwarded-For: 1.2.3.4\r\n",
    ),
    *(
        b"SCRIPT_NAME: /v2\r\n",
        b"Connection: close\r\n",
        b"Authorization: Basic x\r\n",
        b"traceparent: 00-",
        b"Accept: */*\r\n",
    ),
)
ANSWER = (
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 401 \r\n",
        b"HTTP/1.1 307 \r\n",
        b"HTTP/1.1 404 \r\n",
        b"HTTP/1.1 429 \r\n",
        b"\r\n\r\n",
    ),
    *(
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Location: ",
        b"Retry-After: ",
        b"Docker-Content-Digest: @DIGEST@",
    ),
    *(
        b"http://127.0.0.1:@PORT@/",
        b"https://other.example/",
        b'Bearer realm="http://127.0.0.1:@PORT@/t"',
        b"Link: <",
        NEXT,
    ),
    *(
        b"Content-Type: text/html\r\n",
        b"Content-Encoding: gzip\r\n",
        b"ratelimit-limit: 100;w=21600\r\n",
        b"@CONTENT@",
        b"@DIGEST@",
    ),
    *(
        b"\nGET tag\n",
        b"HEAD tag\n",
        b"tags",
        b"referrers",
        b"blob",
        b'{"tags":["a","b"]}',
        b"OCI-Filters-Applied: artifactType\r\n",
    ),
)
