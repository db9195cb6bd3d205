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
    ("Idempotency-Key", "request key"),
    ("POST /v1/approvals", "`portvault approval request`"),
)
_PARAMETER = re.compile(r"\?(\w+)=")


def worded(text: str) -> str:
    """Return what a problem says in the words of the command line."""
    for name, ours in _WORDS:
        text = text.replace(name, ours)
    return _PARAMETER.sub(lambda found: f"--{found[1].replace('_', '-')} ", text)
