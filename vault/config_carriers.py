"""The settings of carriers' webhooks; `Config` has them beside its own."""

from dataclasses import dataclass, field

from vault.config_faxes import FaxSettings


@dataclass(frozen=True, slots=True)
class CarrierSettings(FaxSettings):
    """What carriers sign with; a carrier without one is refused."""

    #: Telnyx's public key (base64), from its portal.
    telnyx_public_key: str = ""
    #: Twilio's auth token; its signature names `public_url`, which must be set, too.
    twilio_auth_token: str = field(default="", repr=False)
    #: `USER:PASSWORD` of the subscription's callback credentials at Bandwidth.
    bandwidth_credentials: str = field(default="", repr=False)
