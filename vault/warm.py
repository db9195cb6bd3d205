"""
What libraries load when it is first needed, loaded before a server serves.

A file that is opened on the loop holds up everybody, and where no descriptor is left it can fail
half-way: a library that then keeps its lock hangs the process for good. So nothing is left to load.
"""

import encodings.idna
import encodings.latin_1
import encodings.punycode  # noqa: F401 - named by text, at the first address that is no ASCII
import importlib
import mimetypes

from phonenumbers.phonemetadata import PhoneMetadata

from vault.web.console.pages import load_pages


def warm() -> None:
    """Load what the jobs of a server need; takes about half a second."""
    importlib.import_module("vault.adapters.public_resolver")
    PhoneMetadata.load_all()
    mimetypes.init()
    load_pages()
