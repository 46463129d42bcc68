"""Error bodies: one error, a known code, always JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.oci.error import Code, body

REGISTERED = {  # distribution-spec, "Error Codes": code-1 to code-14
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}


def test_codes_are_the_specs_and_two_with_a_reason() -> None:
    assert {code.value for code in Code} - REGISTERED == {"TAG_INVALID", "UNAVAILABLE"}


def test_codes_that_clients_misread_are_never_used() -> None:
    """401 starts a client's log-in, and ggcr takes an upload code for a passing fault."""
    assert not {"UNAUTHORIZED", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"} & set(Code)


@pytest.mark.parametrize("code", Code)
def test_a_body_has_exactly_one_error(code: Code) -> None:
    assert json.loads(body(code, "why")) == {"errors": [{"code": code.name, "message": "why"}]}
    assert json.loads(body(code, "why", {"tag": "a:1"})) == {
        "errors": [{"code": code.name, "message": "why", "detail": {"tag": "a:1"}}]
    }


@pytest.mark.parametrize("detail", [{}, [], 0, False, ""], ids=repr)
def test_an_empty_detail_is_a_detail(detail: object) -> None:
    assert json.loads(body(Code.DENIED, "why", detail))["errors"][0]["detail"] == detail


@given(st.text() | st.text(st.characters(categories=["Cs", "Cc"])))
def test_whatever_a_message_quotes_can_be_written(message: str) -> None:
    written = body(Code.NAME_INVALID, message)
    assert written.isascii()
    said = json.loads(written)["errors"][0]["message"]
    assert said.encode("utf-16", "surrogatepass") == message.encode("utf-16", "surrogatepass")  # JSON joins pairs
