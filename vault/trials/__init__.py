"""The demonstration and the drill: the promises tried from outside. Not part of the wheel."""
