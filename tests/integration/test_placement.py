"""An order in a region where it does not belong is refused or warned of, at every entrance."""

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import NUMBERS, NUMBERS_OF, OPERATOR, Api
from vault.actions.credentials import create_token
from vault.context import Vault
from vault.domain.credentials import Grant

US = "+12125550123"


async def opening(api: Api, region: str, *numbers: str, role: str = "porting") -> tuple[int, dict]:
    """Open an order."""
    fields = {"region": region, "customer": "acme", "numbers": list(numbers)}
    status, said, _ = await api.call("POST", "/v1/orders", json=fields, role=role)
    return status, said


async def test_a_number_of_another_region_is_refused(api: Api, vault: Vault) -> None:
    """In a new order and in a corrected one; it is recorded, and nothing of it is kept."""
    status, said = await opening(api, "uk", *NUMBERS, US)
    assert (status, "numbers[1], a number of us, belongs in us" in said["detail"]) == (422, True)
    assert US not in said["detail"]
    rows = await vault.pool.fetch(
        "select reason from access_record where action = 'order.create' and result = 'failed'"
    )
    assert [row["reason"] for row in rows] == ["misplaced"]
    assert await vault.pool.fetchval("select count(*) from porting_order") == 0
    status, order = await opening(api, "uk", *NUMBERS)
    assert (status, order["warnings"]) == (201, [])
    path = f"/v1/orders/{order['id']}/actions/correct"
    status, said, _ = await api.call("POST", path, json={"numbers": [US]})
    assert (status, "belongs in us" in said["detail"]) == (422, True)
    _, kept, _ = await api.call("GET", f"/v1/orders/{order['id']}")
    assert kept["numbers_masked"] == order["numbers_masked"]


async def test_a_desk_elsewhere_is_warned(api: Api, vault: Vault) -> None:
    """The order is opened, and the answer says what is likely a mistake."""
    grant = Grant("porting", frozenset({"uk", "sg"}), located="uk")
    _, api.tokens["london"] = await create_token(vault, OPERATOR, grant, label="london")
    status, order = await opening(api, "sg", *NUMBERS_OF["sg"], role="london")
    assert status == 201
    (warning,) = order["warnings"]
    assert warning["code"] == "principal-elsewhere"
    assert "a desk in uk" in warning["detail"]
    status, order = await opening(api, "uk", *NUMBERS, role="london")
    assert (status, order["warnings"]) == (201, [])


async def test_the_terminal_refuses_and_warns(vault_process: VaultProcess) -> None:
    """A refusal is one line; a warning stands beside the id, not in its place."""
    vault = vault_process
    desk = await token_of(vault, "porting")
    create = ("order", "create", "--region", "uk", "--customer", "acme", "--number")
    status, out, says = await vault.run(*create, US, **desk)
    assert (status != 0, out, "belongs in us" in says) == (True, "", True)
    located = ("token", "create", "--role", "porting", "--region", "uk", "--located", "nz")
    abroad = {"PORTVAULT_TOKEN": (await vault.json(*located))["token"]}
    status, out, says = await vault.run(*create, *NUMBERS, **abroad)
    assert (status, len(out.split()), "warning: what a desk in nz" in says) == (0, 1, True)
