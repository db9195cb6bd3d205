"""Connections: one account of them all, a share for each address, and a limit for each phase."""

import asyncio
import resource
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import ClassVar

import aiohttp
import pytest

from tests.certificates import Authority
from tests.fixtures_server import OPERATOR
from tests.integration.test_transport import client
from vault.actions.credentials import create_token
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.mail.listener import listening as mail_listening
from vault.process.listener import DESCRIPTORS_KEPT, Connections, Room, raise_descriptors
from vault.process.watches import STRANGERS_PART, IntakeMemory
from vault.web import listening
from vault.web.auth import networks
from vault.web.listening import open_account

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ALIVE = b'{"status": "alive"}'


@asynccontextmanager
async def served(vault: Vault, **settings):
    """Serve a vault with these settings; gives its port and the account of its connections."""
    config = replace(vault.config, **settings)
    account = open_account(config)
    async with listening.serving(config, replace(vault, config=config), account) as url:
        yield int(url.rpartition(":")[2]), account


class Peer:
    """A connection from one of loopback's many addresses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    made: ClassVar[list["Peer"]] = []

    @classmethod
    async def of(cls, port: int, address: str = "127.0.0.1"):
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
        cls.made.append(peer)
        return peer

    async def answered(self) -> bool:
        """Whether a request is answered; else the connection is closed."""
        try:
            self.writer.write(HEAD)
            async with asyncio.timeout(20):
                head = await self.reader.readuntil(b"\r\n\r\n")
                answer = await self.reader.readexactly(len(ALIVE))
                return bool(b" 200 " in head and answer == ALIVE)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    async def closed(self) -> bool:
        """Wait until the other side has ended it."""
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
        return True


@pytest.fixture(autouse=True)
async def hang_up():
    """Let no connection of a test outlive it."""
    yield
    while Peer.made:
        Peer.made.pop().writer.transport.abort()
    await asyncio.sleep(0)


async def until(true) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_an_address_has_its_share_and_no_more(vault: Vault) -> None:
    """At its share the next connection is closed; another address comes in; an end is room."""
    async with served(vault, connections_max=64, connections_per_address_max=4) as (port, account):
        mine = [await Peer.of(port) for _ in range(4)]
        assert all([await peer.answered() for peer in mine])
        assert not await (await Peer.of(port)).answered()
        assert await (await Peer.of(port, "127.0.0.2")).answered()
        assert (account.open, account.refused) == (5, 1)
        mine[0].writer.close()
        await until(lambda: account.open == 4)
        assert await (await Peer.of(port)).answered()


async def test_who_only_sits_there_keeps_nobody_out(vault: Vault) -> None:
    """With every place taken by idle connections from several sides, newcomers are answered."""
    async with served(vault, connections_max=32, connections_per_address_max=16) as (port, account):
        idle = [await Peer.of(port, f"127.0.0.{2 + n % 4}") for n in range(40)]
        await until(lambda: account.open == 32)
        for n in range(10):
            assert await (await Peer.of(port, f"127.0.1.{1 + n}")).answered()
        assert account.open <= 32
        assert account.cut >= 10
        assert len(idle) == 40


async def test_a_request_in_progress_is_never_cut_for_room(vault: Vault) -> None:
    """With every place answering a request, one more is closed, and they are answered."""
    async with served(vault, connections_max=16, connections_per_address_max=8) as (port, account):
        body = b"POST /v1/hooks/telnyx HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{"
        busy = [await Peer.of(port, f"127.0.0.{2 + n % 4}") for n in range(16)]
        for peer in busy:
            peer.writer.write(body)
        await until(
            lambda: (
                account.open == 16
                and not any(
                    place.holder is None or place.holder.is_waiting()
                    for places in account._places.values()
                    for place in places
                )
            )
        )
        assert not await (await Peer.of(port, "127.0.0.9")).answered()
        for peer in busy:
            peer.writer.write(b"}")
            assert b" 401 " in await peer.reader.readuntil(b"\r\n\r\n")


async def test_a_proxy_speaks_for_many(vault: Vault) -> None:
    """A trusted proxy has no share of one address; what it holds counts in all."""
    async with served(
        vault,
        connections_max=64,
        connections_per_address_max=2,
        trusted_proxies=("127.0.0.7", "127.0.0.1"),
    ) as (port, account):
        proxied = [await Peer.of(port, "127.0.0.7") for _ in range(6)]
        assert all([await peer.answered() for peer in proxied])
        assert account.open == 6


def test_a_neighbourhood_of_ipv6_is_one_address() -> None:
    """One line has a /64, so it counts as one; an IPv4 address counts as itself however written."""
    account = Connections(Room(64, 2, 1024), networks(["2001:db8:9::/48"]))
    assert [account.take(f"2001:db8::{n}") is not None for n in range(3)] == [True, True, False]
    assert account.take("2001:db8:0:1::1") is not None
    assert [account.take(text) is not None for text in ("192.0.2.1", "::ffff:192.0.2.1")] == [
        True,
        True,
    ]
    assert account.take("192.0.2.1") is None
    assert all(account.take("2001:db8:9::1") for _ in range(5))


async def test_tls_that_is_never_agreed_on_has_a_place_and_an_end(vault: Vault, tmp_path) -> None:
    """Who connects and says nothing counts from the first moment, and is cut in time."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    async with served(
        vault,
        connections_max=64,
        connections_per_address_max=3,
        tls_certificate=str(certificate),
        tls_key=str(key),
        tls_handshake_seconds=0.5,
    ) as (port, account):
        silent = [await Peer.of(port) for _ in range(3)]
        await until(lambda: account.open == 3)
        assert await (await Peer.of(port)).closed()
        assert all([await peer.closed() for peer in silent])
        await until(lambda: account.open == 0)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/healthz", ssl=client(authority)) as response,
        ):
            assert response.status == 200


async def test_tls_that_is_never_agreed_on_keeps_nobody_out(vault: Vault, tmp_path) -> None:
    """With every place taken by those who say nothing, who speaks TLS is answered at once."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    async with served(
        vault,
        connections_max=16,
        connections_per_address_max=8,
        tls_certificate=str(certificate),
        tls_key=str(key),
        tls_handshake_seconds=300.0,
    ) as (port, account):
        silent = [await Peer.of(port, f"127.0.0.{2 + n % 4}") for n in range(16)]
        await until(lambda: account.open == 16)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/healthz", ssl=client(authority)) as response,
        ):
            assert response.status == 200
        assert await silent[0].closed()
        assert account.cut == 1


async def test_each_phase_has_its_limit(vault: Vault) -> None:
    """A head that drips is cut, the first and a later one; between two a connection may rest."""
    async with served(vault, header_seconds=0.4, idle_seconds=30.0) as (port, account):
        silent, resting, dripping = [await Peer.of(port) for _ in range(3)]
        assert await resting.answered()
        assert await dripping.answered()
        dripping.writer.write(HEAD[:10])
        assert await silent.closed()
        assert await dripping.closed()
        assert await resting.answered()
        assert account.open == 1


async def test_a_head_that_begins_with_the_connection_has_its_limit(vault: Vault) -> None:
    """Bytes that are there when the connection is accepted do not end the time for their head."""
    async with served(vault, header_seconds=0.4, idle_seconds=300.0) as (port, _):
        with socket.create_connection(("127.0.0.1", port)) as begun:
            # Before the loop has its turn, and so before the connection is accepted.
            begun.sendall(HEAD[:10])
            begun.setblocking(False)
            async with asyncio.timeout(20):
                assert await asyncio.get_running_loop().sock_recv(begun, 1) == b""


async def test_an_answer_that_is_not_taken_ends(vault: Vault) -> None:
    """Who asks for documents of the API again and again and reads nothing is cut off."""
    async with served(vault, idle_seconds=0.5) as (port, account):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        for _ in range(400):
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: account.open == 1)
        await until(lambda: account.open == 0)
        writer.transport.abort()


async def test_mail_is_in_the_same_account(vault: Vault) -> None:
    """What comes in by SMTP takes its places from the same share."""
    config = replace(
        vault.config,
        connections_max=64,
        connections_per_address_max=3,
        fax_listen="127.0.0.1:0",
        fax_listen_domains=("fax.test",),
        fax_listen_peers=("127.0.0.0/8",),
    )
    account = open_account(config)
    changed = replace(vault, config=config)
    async with (
        listening.serving(config, changed, account) as url,
        mail_listening(changed, account) as address,
    ):
        assert address is not None
        mail, web = (int(where.rpartition(":")[2]) for where in (address, url))
        senders = [await Peer.of(mail) for _ in range(2)]
        for sender in senders:
            assert (await sender.reader.readline()).startswith(b"220 ")
        assert await (await Peer.of(web)).answered()
        assert not await (await Peer.of(web)).answered()
        senders[0].writer.close()
        await until(lambda: account.open == 2)
        assert await (await Peer.of(web)).answered()


async def test_mail_makes_room_and_a_mail_that_is_taken_is_not_cut(vault: Vault) -> None:
    """Who is cut for room is gone in truth; a mail on its way goes on, whoever asks for room."""
    config = replace(
        vault.config,
        connections_max=16,
        connections_per_address_max=8,
        fax_listen="127.0.0.1:0",
        fax_listen_domains=("fax.test",),
        fax_listen_peers=("127.0.0.0/8",),
    )
    account = open_account(config)
    changed = replace(vault, config=config)
    async with (
        listening.serving(config, changed, account) as url,
        mail_listening(changed, account) as address,
    ):
        assert address is not None
        mail, web = (int(where.rpartition(":")[2]) for where in (address, url))
        senders = [await Peer.of(mail, f"127.0.0.{2 + n % 4}") for n in range(16)]
        for sender in senders:
            assert (await sender.reader.readline()).startswith(b"220 ")
        taking = senders[:8]
        for sender in taking:
            for said, answer in (
                (b"EHLO x", b"250 "),
                (b"MAIL FROM:<a@b.test> SIZE=100", b"250 "),
                (b"RCPT TO:<+442079460123@fax.test>", b"250 "),
                (b"DATA", b"354 "),
            ):
                sender.writer.write(said + b"\r\n")
                while not (await sender.reader.readline()).startswith(answer):
                    pass
        for n in range(8):
            assert await (await Peer.of(web, f"127.0.1.{1 + n}")).answered()
        assert (account.open, account.cut) == (16, 8)
        assert all([await sender.closed() for sender in senders[8:]])
        for sender in taking:
            sender.writer.write(b"Subject: x\r\n\r\nno fax\r\n.\r\n")
            assert (await sender.reader.readline()).startswith(b"550 ")


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """A process that was given few descriptors by its shell takes all that it may."""
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 900))\n"
        "from vault.process.listener import raise_descriptors; print(raise_descriptors())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert said.stdout == b"900\n"
    assert raise_descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(
    "descriptors, places, share", [(1024, 384, 192), (20_000, 4096, 1024), (100, 16, 8)]
)
def test_what_a_limit_is_worth(config, descriptors: int, places: int, share: int) -> None:
    """Each connection and what it opens has descriptors; no address has more than half of all."""
    room = Room.of(config, descriptors)
    assert (room.places, room.places_per_address) == (places, share)
    assert descriptors < DESCRIPTORS_KEPT or 2 * places + DESCRIPTORS_KEPT <= descriptors


async def test_an_upload_of_some_bytes_now_and_then_is_dropped(
    vault: Vault, passport: bytes
) -> None:
    """A sender that never rests, and never comes to an end either, loses its place."""
    async with served(vault, upload_idle_seconds=0.3, upload_bytes_per_second_min=100_000) as (
        port,
        _,
    ):
        _, secret = await create_token(
            vault, OPERATOR, Grant("fax-gateway", frozenset({"uk"})), label="slow"
        )
        slow = await Peer.of(port)
        slow.writer.write(
            b"POST /v1/faxes?direction=inbound&to=%2B442079460123 HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer " + secret.encode() + b"\r\nContent-Length: 100000\r\n\r\n"
        )

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:
                    slow.writer.write(b"0123456789abcdef")
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(20):
            assert b" 400 " in await slow.reader.readuntil(b"\r\n\r\n")
            assert b"bytes a second" in await slow.reader.readuntil(b"}")
        dripping.cancel()


async def test_bodies_of_strangers_keep_nobody_else_out(vault: Vault, fax: bytes) -> None:
    """However many bodies come from who is not known, there is memory left for who is."""
    memory = IntakeMemory(vault.config.fax_bytes_max + 4 * 250_000)
    _, secret = await create_token(
        vault, OPERATOR, Grant("fax-gateway", frozenset({"uk"})), label="gateway"
    )
    changed = replace(vault, memory=memory)
    async with served(changed, upload_idle_seconds=300.0, shutdown_seconds=0.1) as (port, _):
        for n in range(40):
            stranger = await Peer.of(port, f"127.0.0.{2 + n % 4}")
            stranger.writer.write(
                b"POST /v1/hooks/telnyx HTTP/1.1\r\nHost: x\r\nContent-Length: 250000\r\n\r\n"
                + bytes(249_999)
            )
        taken = memory.bytes_max // STRANGERS_PART - 250_000
        await until(lambda: memory.taken_bytes > taken)
        # A moment more, for what should not come.
        await asyncio.sleep(0.5)
        assert memory.taken_bytes <= memory.bytes_max // STRANGERS_PART
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{port}/v1/faxes?direction=inbound&to=%2B442079460123",
                data=fax,
                headers={"Authorization": f"Bearer {secret}"},
            ) as response,
        ):
            assert response.status == 201
    assert memory.taken_bytes == 0


async def test_what_is_on_its_way_is_answered_at_the_end(vault: Vault, passport: bytes) -> None:
    """At a stop an upload that comes in time is kept; one that does not is refused with 503."""
    _, secret = await create_token(
        vault, OPERATOR, Grant("porting", frozenset({"uk"})), label="desk"
    )
    bearer = {"Authorization": f"Bearer {secret}"}
    go_on = asyncio.Event()

    async def slow(end: asyncio.Event):
        yield passport[:9000]
        await end.wait()
        yield passport[9000:]

    async def put(path: str, end: asyncio.Event) -> int:
        async with session.post(path, data=slow(end), headers=bearer) as response:
            return response.status

    async with aiohttp.ClientSession() as session:
        async with served(vault, shutdown_seconds=1.0, upload_idle_seconds=30.0) as (port, _):
            url = f"http://127.0.0.1:{port}/v1/orders"
            fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
            async with session.post(url, json=fields, headers=bearer) as response:
                path = f"{url}/{(await response.json())['id']}/documents?kind=passport"
            kept = [asyncio.create_task(put(path, go_on)) for _ in range(3)]
            late = [asyncio.create_task(put(path, asyncio.Event())) for _ in range(3)]
            intents = "select count(*) from access_record where document is not null"
            async with asyncio.timeout(20):
                while await vault.pool.fetchval(intents) < 6:
                    await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        assert await asyncio.gather(*kept) == [201, 201, 201]
        assert await asyncio.gather(*late) == [503, 503, 503]
    assert await vault.pool.fetchval("select count(*) from document where custody = 'stored'") == 3
