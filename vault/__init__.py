"""Portvault: a vault for number-porting identity proofs and fax content."""

__version__ = "0.1.0"
