"""The routes of documents."""

from vault.domain.access import Purpose
from vault.domain.documents import HEIC, JPEG, PDF, PNG, TIFF
from vault.web import api
from vault.web.routes.route import IDEMPOTENCY, Route
from vault.web.shapes import ID, KIND, Parameter, one_of

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{id}/documents",
        api.ingest_document,
        "Take a document into custody",
        201,
        "Document",
        body="file",
        files=(PDF, JPEG, PNG, TIFF, HEIC),
        query={"kind": Parameter("What it is; other usual names are taken, too.", KIND, True)},
        headers={
            **IDEMPOTENCY,
            "Content-Disposition": Parameter(
                "attachment; filename=…; kept encrypted with the document."
            ),
            "Content-Digest": Parameter("sha-256=:BASE64:; checked where it is sent."),
        },
        refusals=(409, 422),
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
            "Access-Purpose": Parameter("Why it is read.", one_of(Purpose), True),
            "Access-Reference": Parameter("The ticket or order that some purposes need."),
            "Access-Approval": Parameter("The approved disclosure, where the role needs one.", ID),
        },
        refusals=(409, 410, 422, 423, 451),
    ),
)
