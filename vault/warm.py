"""
What libraries load or start when it is first needed, there before a server serves.

A file that is opened on the loop holds up everybody, and where no descriptor is left it can fail
half-way: a library that then keeps its lock hangs the process for good. So nothing is left to load,
and no thread to start.
"""

import asyncio
import encodings.idna
import encodings.latin_1
import encodings.punycode  # noqa: F401 - named by text, at the first address that is no ASCII
import importlib
import mimetypes

from phonenumbers.phonemetadata import PhoneMetadata

from vault.adapters.threads import running_threads

#: Names are resolved in them, and small files read.
THREADS = 16


def warm() -> None:
    """Load what the jobs of a server need on the loop that runs; takes about half a second."""
    asyncio.get_running_loop().set_default_executor(running_threads(THREADS, "loop"))
    importlib.import_module("vault.adapters.public_resolver")
    PhoneMetadata.load_all()
    mimetypes.init()
