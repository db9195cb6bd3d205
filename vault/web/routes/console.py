"""The console's routes. They are pages and no part of the API, so OpenAPI does not tell of them."""

from vault.web.console import handlers
from vault.web.routes.route import Route

CONSOLE_ROUTES = (
    Route("GET", "/", handlers.go_to_console, "To the console", 303, "text/html"),
    Route("GET", "/console", handlers.show_console, "Who is signed in", 200, "text/html"),
    Route("GET", "/console/sign-in", handlers.begin, "Begin a sign-in", 303, "text/html"),
    Route("GET", "/console/callback", handlers.callback, "End a sign-in", 303, "text/html"),
    Route("POST", "/console/sign-out", handlers.end, "Sign out", 303, "text/html"),
    Route(
        "POST",
        "/console/back-channel-logout",
        handlers.end_elsewhere,
        "Sign out whom the identity provider names",
        200,
        "text/plain",
    ),
)
