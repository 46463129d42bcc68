"""`/sightings/REF`: what was recorded for a tag, with its evidence, for people and programs that check it without us."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lib.errors import NotFound
from lib.handlers.response import NO_STORE, Response, json_response, time_text

if TYPE_CHECKING:
    from lib.oci.reference import Tag
    from lib.recorder import Recorder

ABOUT = (
    "This is what this service was shown the first time anybody asked for the tag. It is final here: it says nothing about "
    "whether the image is good, and nobody can edit or withdraw it."
)


def sighting(recorder: Recorder, tag: Tag) -> Response:
    """The stored record, verified now; 404 if the tag was never seen. Never makes a record. Raises TlogistryError."""
    record = recorder.record(tag)
    if record is None:
        msg = f"{tag.familiar} has not been seen by this service"
        raise NotFound(msg)
    seen = record.sighting
    return json_response(
        200,
        {
            "tag": str(seen.tag),
            "digest": str(seen.digest),
            "logIndex": seen.log_index,
            "uuid": seen.uuid,
            "integratedTime": time_text(seen.integrated_time),
            "about": ABOUT,
            "bundle": json.loads(record.bundle),
        },
        {"Cache-Control": NO_STORE},
    )
