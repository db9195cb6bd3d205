"""JSON shapes of what proves the log."""

from typing import Any

from vault.web.shapes import STRING, structure

_STRINGS = {"type": "array", "items": STRING}
_SIZE = {"type": "integer", "minimum": 1}

LOG_SCHEMAS: dict[str, Any] = {
    "LogKeys": structure({"key": STRING, "handovers": _STRINGS}),
    "Cosignature": structure({"size": _SIZE, "cosignature": STRING}),
    "Cosigned": structure({"size": _SIZE, "witness": STRING}),
    "ConsistencyProof": structure({"from": _SIZE, "to": _SIZE, "proof": _STRINGS}),
}
