"""Numbers, addresses and routes of faxes, as people and networks write them."""

import pytest

from vault.domain.fax_mail import Tls, check_hosts, parse_routes
from vault.domain.faxes import (
    clean_facts,
    mask,
    parse_address,
    read_number,
    region_by_code,
    region_of,
)
from vault.errors import ConfigurationError

DOMAINS = frozenset({"fax.test"})
GOOD = {
    "+442079460123@fax.test": "+442079460123",
    "442079460123@fax.test": "+442079460123",
    "FAX=+442079460123@fax.test": "+442079460123",
    "fax=+44-20-7946.0123@FAX.TEST": "+442079460123",
    '"FAX=+442079460123"@fax.test': "+442079460123",
}
BAD = (
    "+442079460123@other.test",
    "+442079460123",
    "alice@fax.test",
    "FAX=02079460123@fax.test",
    "FAX=+442079460123/T33S=12@fax.test",
    "VOICE=+442079460123@fax.test",
    "+44;rm -rf@fax.test",
    "+442079460123\r\n@fax.test",
    "+44" + "0" * 40 + "@fax.test",
    "@fax.test",
    "٤٤2079460123@fax.test",
)


@pytest.mark.parametrize("address", GOOD)
def test_fax_addresses_are_understood(address):
    """Everyday and RFC 3192 addresses name their number."""
    assert parse_address(address, DOMAINS) == GOOD[address]


@pytest.mark.parametrize("address", BAD)
def test_other_addresses_are_not(address):
    """What is no global number, has a sub-address or another domain names none."""
    assert parse_address(address, DOMAINS) is None


def test_numbers_have_their_regions():
    """Each country has its region, with its territories and new area codes; neighbours none."""
    found = {
        "+442079460123": "uk",
        "+16505550100": "us",
        "+14165550100": None,
        "+18765550100": None,
        "+16215550123": "us",
        "+19245550123": "us",
        "+17875550123": "us",
        "+13405550123": "us",
        "+16715550123": "us",
        "+447911123456": "uk",
        "+441481550123": "uk",
        "+61891640123": "au",
        "+64211234567": "nz",
        "+61291234567": "au",
        "+6561234567": "sg",
        "+85221234567": "hk",
        "+33123456789": None,
    }
    assert {number: region_of(number) for number in found} == found
    shared = {"+14165550100": "us", "+18765550100": "us"}
    assert {number: region_by_code(number) for number in found} == found | shared


def test_masks_hide_the_last_three_digits():
    """What outlives a call is a number without its end."""
    assert mask("+442079460123", "uk") == "+442079460***"


def test_remote_text_is_a_number_or_nothing():
    """Separators are fine, anything else is not."""
    assert read_number("+44 (20) 7946-0123") == "+442079460123"
    assert read_number("$(reboot)") is None
    assert clean_facts({"message": "a\r\nb", "device": "tty\x00S0"}) == {"message": "a  b"}


TABLE = """
[[routes]]
number = "+4420*"
address = "all@acme.test"
[[routes]]
number = "+442079*"
address = "near@acme.test"
[[routes]]
number = "+442079460123"
address = "one@acme.test"
region = "sg"
[[domains]]
domain = "acme.test"
tls = "opportunistic"
host = "mx.acme.test:25"
"""


def test_the_nearest_route_is_taken():
    """A number's own row goes before prefixes, and a longer prefix before a shorter one."""
    routes = check_hosts(parse_routes(TABLE), "")
    found = [routes.find(number) for number in ("+442079460123", "+442079460124", "+442012345678")]
    assert [route.address for route in found if route] == [
        "one@acme.test",
        "near@acme.test",
        "all@acme.test",
    ]
    assert routes.find("+33123456789") is None
    assert routes.domain("acme.test").tls is Tls.OPPORTUNISTIC
    assert routes.domain("other.test").tls is Tls.REQUIRED


@pytest.mark.parametrize(
    "text",
    [
        "[[routes]]\nnumber = 'x'\naddress = 'a@b.test'",
        "[[routes]]\nnumber = '+44*'\naddress = 'nobody'",
        "[[routes]]\nnumber = '+44*'\naddress = 'a@b.test\\r\\nBcc: c@d.test'",
        "[[routes]]\nnumber = '+44*'",
        "[[routes]]\nnumber = '+44*'\naddress = 'a@b.test'\nregion = 'fr'",
        "[[routes]]\nnumber = '+44*'\naddress = 'a@b.test'\n" * 2,
        "[[domains]]\ndomain = 'b.test'\ntls = 'never'",
        "[[domains]]\ndomain = 'b.test'\nhost = 'mx'",
        "[[other]]\na = 1",
        "not toml",
    ],
)
def test_a_table_that_is_wrong_stops_the_start(text):
    """Whatever cannot be meant is named, and nothing is guessed."""
    with pytest.raises(ConfigurationError):
        parse_routes(text)


def test_a_route_without_a_next_hop_stops_the_start():
    """Mail that has nowhere to go is found before the first fax."""
    with pytest.raises(ConfigurationError, match=r"acme\.test"):
        check_hosts(parse_routes("[[routes]]\nnumber = '+44*'\naddress = 'a@acme.test'"), "")
