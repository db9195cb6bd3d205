"""The routes of documents."""

from vault.web import api
from vault.web.routes.route import IDEMPOTENCY, Route

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{id}/documents",
        api.ingest_document,
        "Take a document into custody",
        201,
        "Document",
        body="file",
        query={"kind": "passport, national_id, drivers_licence, loa, …"},
        headers={
            **IDEMPOTENCY,
            "Content-Disposition": "attachment; filename=…; kept sealed with the document.",
            "Content-Digest": "sha-256=:BASE64:; checked where it is sent.",
        },
        refusals=(400, 409, 413, 415, 422),
    ),
    Route(
        "GET",
        "/v1/documents/{id}",
        api.show_document,
        "Show a document's custody and retention",
        200,
        "Document",
    ),
    Route(
        "GET",
        "/v1/documents/{id}/content",
        api.read_content,
        "Read a document for a stated purpose",
        200,
        "application/octet-stream",
        headers={
            "Access-Purpose": "verify-identity, submit-to-carrier, resolve-exception, …",
            "Access-Reference": "The ticket or order that some purposes need.",
            "Access-Approval": "The approved disclosure, where the role needs one.",
        },
        refusals=(409, 410, 422, 423, 451),
    ),
)
