"""The routes of the access log."""

from vault.web import log_api, log_export_api, tlog_api
from vault.web.routes.route import PAGE, Route
from vault.web.shapes import BOOLEAN, ID, REGION, Parameter, one_of

_WITNESSED = {"witnessed": Parameter("The newest that a witness has cosigned.", BOOLEAN)}
_SIZE = {"type": "integer", "minimum": 1}

ROUTES = (
    Route(
        "GET",
        "/v1/access-records",
        log_api.list_access_records,
        "List access records, newest first",
        200,
        "AccessRecordPage",
        query={**log_api.RECORD_FILTERS, **PAGE},
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/access-records/export",
        log_export_api.export_access_records,
        "Export a stretch of the log, with what proves it",
        200,
        "application/jsonl",
        query={
            "region": Parameter("Whose log.", REGION, True),
            "format": Parameter(
                "jsonl (which proves itself), or csv for people.",
                one_of(log_export_api.MEDIA_TYPES),
            ),
            "from": Parameter("From the first record of this time or date on."),
            "to": Parameter("Up to the last record before this time or date."),
        },
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/checkpoint",
        tlog_api.show_checkpoint,
        "Show the published checkpoint of a region's log",
        200,
        tlog_api.TEXT,
        query={"region": Parameter("Whose log.", REGION, True), **_WITNESSED},
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/checkpoint",
        tlog_api.show_log_checkpoint,
        "Show the same under the prefix of the log (C2SP tlog-tiles)",
        200,
        tlog_api.TEXT,
        query=_WITNESSED,
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/keys",
        tlog_api.show_log_keys,
        "Show the key that signs the log, and how earlier keys named it",
        200,
        "LogKeys",
    ),
    Route(
        "GET",
        "/v1/log/{region}/tile/{path:.+}",
        tlog_api.show_tile,
        "Show a tile of hashes, or a bundle of entries (C2SP tlog-tiles)",
        200,
        tlog_api.BYTES,
    ),
    Route(
        "GET",
        "/v1/log/{region}/inclusion",
        tlog_api.prove_inclusion,
        "Prove that a record is in the log (C2SP tlog-proof)",
        200,
        tlog_api.TEXT,
        query={
            "record": Parameter("The record's id, as in a receipt.", ID),
            "index": Parameter("Or its place in the log.", {"type": "integer", "minimum": 0}),
            **_WITNESSED,
        },
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/consistency",
        tlog_api.prove_consistency,
        "Prove that the log of an earlier size is a prefix of a later one",
        200,
        "ConsistencyProof",
        query={
            "from": Parameter("The earlier size.", _SIZE, True),
            "to": Parameter("The later size (the one that is published).", _SIZE),
        },
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/log/{region}/cosignatures",
        tlog_api.add_cosignature,
        "Add what a witness says of a checkpoint (C2SP tlog-cosignature)",
        201,
        "Cosigned",
        body="Cosignature",
        refusals=(422,),
    ),
)
