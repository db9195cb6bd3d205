"""
How the terminal names what a problem names: by the options of `portvault`, not by HTTP's words.

The API's problems name headers and parameters, since that is what its callers send.
"""

import re

#: Each name with what it is called here; a test finds what has none.
_WORDS = (
    ("send Authorization: Bearer pv_…", "set PORTVAULT_TOKEN"),
    ("in Access-Purpose", "with --purpose"),
    ("in Access-Reference", "with --reference"),
    ("Access-Purpose", "--purpose"),
    ("Access-Reference", "--reference"),
    ("Access-Approval", "--approval"),
    ("Content-Encoding and Transfer-Encoding", "encodings"),
    ("Content-Digest", "digest"),
    ("Content-Type", "type"),
    (
        "what this Idempotency-Key made is gone; use another key to send it again",
        "what came of this file within the day is gone; put it --again to keep it anew",
    ),
    (
        "or is to be kept anew, send it with another Idempotency-Key",
        "or is to be kept anew, put it --again",
    ),
    ("Send the document with another Idempotency-Key", "Put it --again"),
    ("Idempotency-Key", "request key"),
    ("POST /v1/approvals", "`portvault approval request`"),
)
_PARAMETER = re.compile(r"\?(\w+)=")
#: A member or parameter of the API with its option, where that is not called the same.
_OPTIONS = {
    "effective_at": "--at",
    "customer_reference": "--reference",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("losing_carrier", "gaining_carrier", "due_before", "replaced_by", "type", "kind"),
            *("from", "to", "until", "cursor", "limit", "number", "region", "customer", "days"),
            *("ground", "reason", "purpose", "reference", "approval", "act", "subject", "keep"),
        )
    },
}
_MEMBER = re.compile(rf"(?<![^;] )(?<!\S)({'|'.join(_OPTIONS)})(?= (?:must|is) |: )", re.ASCII)
_PLACE = re.compile(r"\bnumbers\[(\d+)\]")
_DESCRIBED = re.compile(r"all of them stand in /openapi\.json, for the parameter \w+")


def worded(text: str) -> str:
    """Return what is said of a header or a parameter in the words of the command line."""
    for name, ours in _WORDS:
        text = text.replace(name, ours)
    return _PARAMETER.sub(lambda found: f"--{found[1].replace('_', '-')} ", text)


def problem_worded(detail: str) -> str:
    """Return what a problem of the API says, with its members' names as those of options."""
    text = _MEMBER.sub(lambda found: _OPTIONS[found[1]], worded(detail))
    text = _DESCRIBED.sub("--help lists all of them", text)
    return _PLACE.sub(lambda found: f"number {int(found[1]) + 1}", text)
