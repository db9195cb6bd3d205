"""The regions: where bytes and keys live."""

REGIONS = ("uk", "us", "nz", "au", "sg", "hk")
