"""Signals: signed as Standard Webhooks has it, tried again for hours, and only in public."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from vault.adapters.courier import ForbiddenTargetError, require_public
from vault.adapters.public_resolver import PublicResolver
from vault.config.webhooks import parse_webhooks
from vault.domain.signals import (
    ATTEMPTS_MAX,
    WAIT_MAX,
    SignalType,
    hold_signal,
    next_attempt,
    signature,
)
from vault.errors import ConfigurationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_signature_is_that_of_the_standard() -> None:
    """HMAC-SHA256 over id.timestamp.body under the decoded secret, with the version before it."""
    identity = UUID(int=1)
    secret = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    assert signature(secret, identity, NOW, "{}") == signature(
        secret.removeprefix("whsec_"), identity, NOW, "{}"
    )
    # The example of the standard itself.
    example = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        '{"test": 2432232314}',
    )
    assert example == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    made = signature(secret, identity, NOW, "{}")
    assert made.startswith("v1,")
    assert len(base64.b64decode(made[3:])) == 32
    assert made != signature(secret, identity, NOW, "{ }")
    assert made != signature(secret, identity, NOW + timedelta(seconds=1), "{}")
    assert made != signature(secret, UUID(int=2), NOW, "{}")


def test_the_same_event_has_the_same_id() -> None:
    """A receiver tells a repetition by the id; the payload says type, time and ids."""
    first = hold_signal(SignalType.HOLD_PLACED, UUID(int=5), "uk", NOW)
    again = hold_signal(SignalType.HOLD_PLACED, UUID(int=5), "uk", NOW + timedelta(days=1))
    other = hold_signal(SignalType.HOLD_RELEASED, UUID(int=5), "uk", NOW)
    assert first.id == again.id != other.id
    assert json.loads(first.payload) == {
        "type": "hold.placed",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"hold": str(UUID(int=5)), "region": "uk"},
    }


def test_back_off_doubles_and_ends() -> None:
    """Each wait is twice the last, up to hours; after the last attempt it is given up."""
    waits = [next_attempt(attempts, NOW) for attempts in range(1, ATTEMPTS_MAX + 1)]
    assert waits[-1] is None
    times = [at - NOW for at in waits if at is not None]
    assert times[:3] == [timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120)]
    assert times == sorted(times)
    assert times[-1] <= WAIT_MAX


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a01:203", "64:ff9b::a9fe:a9fe", "64:ff9b:1::5db8:d822"),
        *("2002:a01:203::1", "2002:c0a8:1::", "2002:5db8:d822::1", "2001:0:5db8:d822::1"),
        *("2606:2800:220:1:0:5efe:10.1.2.3", "2606:2800:220:1:200:5efe:127.0.0.1"),
        *("::10.1.2.3", "::93.184.216.34", "::ffff:0:10.1.2.3", "::ffff:0:93.184.216.34"),
        *("fec0::1", "3fff::1", "5f00::1", "100::1", "2001:db8::1", "192.0.2.1", "198.18.0.1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "ff02::1", "2130706433"),
    ],
)
def test_private_addresses_are_refused(address: str) -> None:
    """Loopback, private, link-local, shared, mapped and multicast addresses are no targets."""
    with pytest.raises(ForbiddenTargetError):
        require_public(address)


def test_public_addresses_are_not() -> None:
    """An address of the public internet is a target."""
    require_public("93.184.216.34")
    require_public("2606:2800:220:1:248:1893:25c8:1946")
    require_public("64:ff9b::5db8:d822")
    require_public("2606:2800:220:1:200:5efe:93.184.216.34")


@pytest.mark.parametrize("name", ["localhost", "0x7f.1", "127.1"])
async def test_names_of_this_machine_are_refused(name: str) -> None:
    """A name is as good as the addresses it has, however it is written."""
    with pytest.raises(ForbiddenTargetError):
        await PublicResolver().resolve(name, 443)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"url": "http://example.com/"}, "https"),
        ({"url": "https://user:pw@example.com/"}, "https"),
        ({"url": "ftp://example.com/", "allow_private": True}, "https"),
        ({"secret_file": "/nowhere"}, "cannot be read"),
        ({"colour": "red"}, "has url"),
    ],
)
def test_a_malformed_endpoint_stops_the_start(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    """What is wrong with an endpoint is named, and a short secret is, too."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("x" * 24)
    table = {"url": "https://example.com/hook", "secret_file": str(secret)}
    assert parse_webhooks({"one": table})["one"].url == table["url"]
    with pytest.raises(ConfigurationError, match=says):
        parse_webhooks({"one": {**table, **change}})
    secret.write_text("short")
    with pytest.raises(ConfigurationError, match="24 characters"):
        parse_webhooks({"one": table})
