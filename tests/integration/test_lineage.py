"""One person is never both pairs of eyes: every act, by every relation of two credentials."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import OPERATOR, Api
from vault.actions.approvals import approve, decline, request_approval, withdraw
from vault.actions.credentials import (
    authenticate,
    create_envelope,
    create_token,
    hash_secret,
    list_envelopes,
    open_envelope,
    revoke_envelope,
)
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import APPROVERS, REQUESTERS, Act, Terms
from vault.domain.credentials import Grant
from vault.domain.people import named_person, principal_id
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError
from vault.sql import access as access_sql

#: Whether a session of the test's database waits for another's row.
WAITS = """
    select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock')
"""
UK = frozenset({"uk"})
BOTH = frozenset({"uk", "sg"})
OVERSEER = Principal("token:overseer", "compliance", BOTH)
PERSON = principal_id("https://id.example", "248289761001")
THING = str(UUID(int=7))
TERMS = {
    Act.HOLD_RELEASE: Terms(Act.HOLD_RELEASE, THING, "uk"),
    Act.POLICY_SHORTEN: Terms(Act.POLICY_SHORTEN, "a" * 64, "uk"),
    Act.DISCLOSURE: Terms(Act.DISCLOSURE, THING, "uk", "disclose-to-authority", "DS-1"),
    Act.EXPIRY_RESUME: Terms(Act.EXPIRY_RESUME, "2026-01-01", "uk"),
    Act.MISTAKE: Terms(Act.MISTAKE, THING, "uk"),
    Act.CORRECT: Terms(Act.CORRECT, f"{THING}/passport", "uk"),
    Act.BREAK_GLASS: Terms(Act.BREAK_GLASS, "compliance/uk", "uk", days=9),
}


async def a_token(vault: Vault, maker: str = OPERATOR.id, person: str | None = "another") -> str:
    """Make a token, of another person than all before unless it says whose, and return its id."""
    by = Principal(maker, "admin", BOTH)
    if person == "another":
        person = principal_id("https://id.example", str(vault.new_id()))
    token, _ = await create_token(vault, by, Grant("dpo", UK, person=person), label="t")
    return f"token:{token}"


async def an_envelope(vault: Vault, sealer: str) -> str:
    """Seal a credential with the agreement of somebody else, and return its secret."""
    admin = Principal(sealer, "admin", BOTH)
    asked = await request_approval(vault, admin, TERMS[Act.BREAK_GLASS], reason="yearly")
    await approve(vault, OVERSEER, asked.id)
    _, secret, _ = await create_envelope(
        vault, admin, role="compliance", regions=["uk"], days=9, approval=asked.id
    )
    return secret


async def opened(vault: Vault, secret: str, opener: str | None) -> str:
    """Open a credential and return the id of its token's principal."""
    who = Principal(opener, "dpo", UK) if opener else None
    token, _ = await open_envelope(vault, secret, "INC-7", who)
    known = await authenticate(vault, token)
    assert known is not None
    return known.principal.id


# How two credentials can be one person's: each makes a pair.


async def oneself(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    return one, one


async def made_the_token(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    return one, await a_token(vault, maker=one)


async def made_it_as_the_operator(vault: Vault) -> tuple[str, str]:
    return OPERATOR.id, await a_token(vault)


async def made_the_makers_token(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    return one, await a_token(vault, maker=await a_token(vault, maker=one))


async def made_both_for_nobody(vault: Vault) -> tuple[str, str]:
    return await a_token(vault, person=None), await a_token(vault, person=None)


async def made_one_of_them_for_nobody(vault: Vault) -> tuple[str, str]:
    return await a_token(vault, person=None), await a_token(vault)


async def made_both_as_one_account(vault: Vault) -> tuple[str, str]:
    makers = ("operator:root/alice", "operator:root/bob")
    one, other = [await a_token(vault, maker, person=None) for maker in makers]
    return one, other


async def made_the_maker_of_the_other(vault: Vault) -> tuple[str, str]:
    maker = await a_token(vault)
    return await a_token(vault, person=None), await a_token(vault, maker=maker, person=None)


async def made_by_nobody_known(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault, person=None)
    # As a token of before migration 9; the service cannot rewrite who made one.
    async with asyncpg.create_pool(vault.config.database) as owner:
        await owner.execute("update token set created_by = null where 'token:' || id = $1", one)
    return one, await a_token(vault)


async def sealed_it_by_a_token_of_nobody(vault: Vault) -> tuple[str, str]:
    envelope = await an_envelope(vault, await a_token(vault, person=None))
    return await opened(vault, envelope, await a_token(vault)), await a_token(vault)


async def sealed_the_envelope(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    return one, await opened(vault, await an_envelope(vault, one), await a_token(vault))


async def opened_the_envelope(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    return one, await opened(vault, await an_envelope(vault, await a_token(vault)), one)


async def opened_it_unseen(vault: Vault) -> tuple[str, str]:
    other = await opened(vault, await an_envelope(vault, await a_token(vault)), None)
    return await a_token(vault), other


async def sealed_two_envelopes(vault: Vault) -> tuple[str, str]:
    sealer = await a_token(vault)
    one, other = [
        await opened(vault, await an_envelope(vault, sealer), await a_token(vault))
        for _ in range(2)
    ]
    return one, other


async def opened_two_envelopes(vault: Vault) -> tuple[str, str]:
    opener = await a_token(vault)
    one, other = [
        await opened(vault, await an_envelope(vault, await a_token(vault)), opener)
        for _ in range(2)
    ]
    return one, other


async def made_a_token_by_an_envelope(vault: Vault) -> tuple[str, str]:
    one = await a_token(vault)
    token = await opened(vault, await an_envelope(vault, one), one)
    return one, await a_token(vault, maker=token)


async def one_subject_signed_in_twice(vault: Vault) -> tuple[str, str]:
    del vault
    return PERSON, principal_id("https://id.example", "248289761001")


async def one_named_person(vault: Vault) -> tuple[str, str]:
    return await a_token(vault, person=PERSON), await a_token(vault, person=PERSON)


async def a_session_and_a_token(vault: Vault) -> tuple[str, str]:
    named = named_person("https://id.example", "248289761001")
    return PERSON, await a_token(vault, person=named)


async def a_session_that_sealed(vault: Vault) -> tuple[str, str]:
    envelope = await an_envelope(vault, PERSON)
    token = await opened(vault, envelope, await a_token(vault))
    return token, await a_token(vault, person=PERSON)


Related = Callable[[Vault], Awaitable[tuple[str, str]]]
RELATIONS: tuple[Related, ...] = (
    oneself,
    made_the_token,
    made_it_as_the_operator,
    made_the_makers_token,
    made_both_for_nobody,
    made_one_of_them_for_nobody,
    made_both_as_one_account,
    made_the_maker_of_the_other,
    made_by_nobody_known,
    sealed_it_by_a_token_of_nobody,
    sealed_the_envelope,
    opened_the_envelope,
    opened_it_unseen,
    sealed_two_envelopes,
    opened_two_envelopes,
    made_a_token_by_an_envelope,
    one_subject_signed_in_twice,
    one_named_person,
    a_session_and_a_token,
    a_session_that_sealed,
)


async def agrees(vault: Vault, act: Act, asks: str, other: str) -> bool:
    """Whether one may agree to what the other asked for."""
    requester = Principal(asks, min(REQUESTERS[act]), BOTH)
    asked = await request_approval(vault, requester, TERMS[act], reason="C-7")
    try:
        await approve(vault, Principal(other, min(APPROVERS[act]), BOTH), asked.id)
    except ForbiddenError:
        return False
    return True


async def test_one_person_is_never_both_pairs_of_eyes(vault: Vault) -> None:
    """Each act, each relation, asked by either and agreed to by the other: refused."""
    assert set(TERMS) == set(Act)
    passed = []
    for relation in RELATIONS:
        pair = await relation(vault)
        for act in Act:
            for asks, other in (pair, pair[::-1]):
                if await agrees(vault, act, asks, other):
                    passed.append((relation.__name__, act, asks, other))
    assert passed == []


async def test_two_people_are(vault: Vault) -> None:
    """Tokens that name two people, or that two operators made, and a person and a token, agree."""
    named = await a_token(vault, person=principal_id("https://id.example", "2"))
    another = "operator:another"
    for one, other in (
        (await a_token(vault), await a_token(vault)),
        (await a_token(vault, person=None), await a_token(vault, another, person=None)),
        (await a_token(vault, maker=named), await a_token(vault, maker=named)),
        (PERSON, named),
        (await a_token(vault, person=PERSON), named),
        (await opened(vault, await an_envelope(vault, PERSON), PERSON), named),
    ):
        for act in Act:
            assert await agrees(vault, act, one, other), (one, other, act)


async def test_an_administrator_does_not_approve_his_own_policy(api: Api, vault: Vault) -> None:
    """The envelope that he had sealed, opened over HTTP, is no second person."""
    asked = {"act": "break-glass", "subject": "compliance/sg/uk", "region": "sg", "days": 9}
    fields = asked | {"reason": "yearly"}
    grant = Grant("compliance", BOTH, person=PERSON)
    _, api.tokens["second"] = await create_token(vault, OPERATOR, grant, label="second")
    _, approval, _ = await api.call("POST", "/v1/approvals", json=fields, role="admin")
    path = f"/v1/approvals/{approval['id']}/actions/approve"
    assert (await api.call("POST", path, role="second"))[0] == 200
    seal = {"role": "compliance", "regions": ["uk", "sg"], "approval": approval["id"]}
    # Nor is it good for longer than was agreed to.
    status, said, _ = await api.call(
        "POST", "/v1/break-glass", json=seal | {"days": 365}, role="admin"
    )
    assert (status, "9 days" in said["detail"]) == (403, True)
    status, sealed, _ = await api.call(
        "POST", "/v1/break-glass", json=seal | {"days": 9}, role="admin"
    )
    assert status == 201
    opening = {"credential": sealed["credential"], "reference": "INC-7"}
    path = "/v1/break-glass/actions/open"
    wrong = {"Authorization": "Bearer pv_nobody"}
    async with api.session.post(api.url + path, json=opening, headers=wrong) as answer:
        assert answer.status == 401
    _, token, _ = await api.call("POST", path, json=opening, role="second")
    api.tokens["opened"] = token["token"]
    policy = {"act": "policy.shorten", "subject": "a" * 64, "region": "uk", "reason": "C-7"}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=policy, role="admin")
    path = f"/v1/approvals/{asked['id']}/actions/approve"
    status, said, _ = await api.call("POST", path, role="opened")
    assert (status, "one person" in said["detail"]) == (403, True)
    assert (await api.call("POST", path, role="second"))[0] == 200


async def test_a_sealed_credential_is_listed_and_revoked(vault: Vault) -> None:
    """Its state is seen by who oversees it; revoked, it opens nothing and its token is dead."""
    admin = Principal("token:admin", "admin", UK)
    await an_envelope(vault, admin.id)
    token = await opened(vault, await an_envelope(vault, admin.id), OVERSEER.id)
    second, first = await list_envelopes(vault, OVERSEER, None, 10)
    assert [one.state(vault.clock()) for one in (first, second)] == ["sealed", "opened"]
    assert (second.sealed_by, second.opened_by) == (admin.id, OVERSEER.id)
    assert f"token:{second.token}" == token
    for one in (first, second):
        revoked = await revoke_envelope(vault, OVERSEER, one.id)
        assert await revoke_envelope(vault, OVERSEER, one.id) == revoked
        assert (revoked.state(vault.clock()), revoked.revoked_by) == ("revoked", OVERSEER.id)
    living = "select count(*) from token where label = 'break-glass' and revoked_at is null"
    assert await vault.pool.fetchval(living) == 0
    said = await vault.pool.fetch(
        "select principal, reason from access_record where action = 'break-glass.revoke'"
        " and phase = 'outcome'"
    )
    assert {tuple(row) for row in said} == {
        (OVERSEER.id, f"break-glass:{one.id}") for one in (first, second)
    }
    stranger = Principal("token:sg", "admin", frozenset({"sg"}))
    assert await list_envelopes(vault, stranger, None, 10) == []


async def test_a_revoked_credential_opens_nothing(vault: Vault) -> None:
    """Nobody opens it after that, however the secret was kept."""
    secret = await an_envelope(vault, "token:admin")
    (sealed,) = await list_envelopes(vault, OVERSEER, None, 10)
    await revoke_envelope(vault, OVERSEER, sealed.id)
    with pytest.raises(ForbiddenError, match="unknown"):
        await opened(vault, secret, None)


async def test_one_that_is_revoked_while_it_is_opened_is_dead(vault: Vault) -> None:
    """Whoever is faster: the token that was made meanwhile is revoked with its envelope."""
    secret = hash_secret(await an_envelope(vault, "token:admin"))
    (sealed,) = await list_envelopes(vault, OVERSEER, None, 10)
    token, now = vault.new_id(), vault.clock()
    async with vault.pool.acquire() as conn:
        async with conn.transaction():
            assert await access_sql.find_break_glass(conn, secret, now, lock=True) is not None
            await access_sql.insert_token(
                conn,
                token,
                b"x" * 32,
                label="break-glass",
                grant=Grant("compliance", UK),
                created_by=f"break-glass:{sealed.id}",
                created_at=now,
                expires_at=None,
            )
            await access_sql.set_break_glass_opened(conn, secret, token, by=None, now=now)
            revoking = asyncio.create_task(revoke_envelope(vault, OVERSEER, sealed.id))
            while not await vault.pool.fetchval(WAITS):
                await asyncio.sleep(0.01)
        assert (await revoking).token == token
        found = await conn.fetchval("select revoked_at from token where id = $1", token)
        assert found is not None


@pytest.mark.parametrize("how", ["declined", "withdrawn"])
@pytest.mark.parametrize("agreed", [True, False])
async def test_a_request_is_declined_or_withdrawn(vault: Vault, how: str, *, agreed: bool) -> None:
    """By whom stands in the row and the log; nothing is agreed to or used after that."""
    dpo = Principal("token:dpo", "dpo", UK)
    other = Principal("token:other", "dpo", UK)
    asked = await request_approval(vault, dpo, TERMS[Act.DISCLOSURE], reason="court-order")
    if agreed:
        await approve(vault, OVERSEER, asked.id)
    ends, who = (decline, other) if how == "declined" else (withdraw, dpo)
    with pytest.raises(ForbiddenError):
        await ends(vault, dpo if who is other else other, asked.id)
    ended = await ends(vault, who, asked.id)
    assert await ends(vault, who, asked.id) == ended
    assert (ended.state(vault.clock()), ended.ended_by) == (how, who.id)
    with pytest.raises(ConflictError, match=f"{how} by {who.id}"):
        await approve(vault, OVERSEER, asked.id)
    action = "approval.decline" if how == "declined" else "approval.withdraw"
    said = await vault.pool.fetch(
        "select principal, reason from access_record where action = $1 and phase = 'outcome'"
        " and result = 'completed'",
        action,
    )
    what = TERMS[Act.DISCLOSURE].text()
    assert [tuple(row) for row in said] == [(who.id, what)] * 2
    assert "DS-1" in what


async def test_the_terminal_names_declines_and_lists(vault_process: VaultProcess) -> None:
    """A token names its person; a request is refused and taken back; envelopes are listed."""
    vault = vault_process
    dpo, other = [await token_of(vault, "dpo", person=f"staff-{n}") for n in (1, 2)]
    mine = [await token_of(vault, "dpo", person="staff-7") for _ in range(2)]
    nobodys = await token_of(vault, "dpo", person=None)
    people = [named_person("", f"staff-{n}") for n in (1, 2, 7, 7)]
    assert [row["person"] for row in await vault.json("token", "list")] == [*people, None]
    request = ("approval", "request", "--act", "hold.release", "--subject", THING)
    ask = (*request, "--region", "uk", "--reason", "C-7")
    asked = await vault.json(*ask, **mine[0])
    status, _, says = await vault.run("approval", "approve", asked["id"], **mine[1])
    assert (status, "one person" in says) == (4, True)
    status, _, says = await vault.run("approval", "approve", asked["id"], **nobodys)
    assert (status, "make them again with `portvault token create`" in says) == (4, True)
    declined = await vault.json("approval", "decline", asked["id"], **other)
    assert declined["state"] == "declined"
    asked = await vault.json(*ask, **dpo)
    withdrawn = await vault.json("approval", "withdraw", asked["id"], **dpo)
    assert withdrawn["state"] == "withdrawn"
    assert await vault.json("break-glass", "list", **dpo) == []
    unknown = await vault.run("break-glass", "revoke", THING, **dpo)
    assert unknown[0] != 0


async def test_a_person_is_named_by_an_id(vault: Vault) -> None:
    """What is kept of the holder is an id, never a name or an address."""
    with pytest.raises(InvalidRequestError, match="person"):
        await a_token(vault, person="jane@example.org")
    with pytest.raises(InvalidRequestError, match="person"):
        named_person("", "")
    assert named_person("", PERSON) == PERSON
