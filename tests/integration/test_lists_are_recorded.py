"""What spans several regions stands in the log of each of them."""

from tests.fixtures_server import OPERATOR, Api
from vault.actions.credentials import create_token
from vault.context import Vault
from vault.domain.access import Role
from vault.domain.credentials import Grant
from vault.web.routes import ROUTES

REGIONS = ("sg", "uk")
#: These are of one region, which the caller has to name.
OF_ONE_REGION = {"/v1/access-records", "/v1/access-records/export", "/v1/log/checkpoint"}
LISTS = sorted(
    {
        route.path
        for route in ROUTES
        if route.method == "GET"
        and route.path.startswith("/v1/")
        and "{" not in route.path
        and route.path not in OF_ONE_REGION
    }
)
INTENTS = "select region, action from access_record where principal = $1 and phase = 'intent'"
OUTCOMES = "select region from access_record where principal = $1 and result = 'completed'"


async def test_a_list_of_several_regions(api: Api, vault: Vault) -> None:
    """Whoever may list something in two regions leaves an intent and an outcome in both logs."""
    answered = set()
    for role in Role:
        for path in LISTS:
            grant = Grant(role.value, frozenset(REGIONS))
            token, api.tokens["both"] = await create_token(vault, OPERATOR, grant, label="both")
            query = "?until=2030-01-01" if path.endswith("plan") else ""
            status, _, _ = await api.call("GET", path + query, role="both")
            if status != 200:
                continue
            answered.add(path)
            rows = await vault.pool.fetch(INTENTS, f"token:{token}")
            assert sorted(row["region"] for row in rows) == list(REGIONS), path
            assert len({row["action"] for row in rows}) == 1
            done = await vault.pool.fetch(OUTCOMES, f"token:{token}")
            assert sorted(row["region"] for row in done) == list(REGIONS), path
    assert answered == set(LISTS)
