"""The commands of `portvault`, a group a file; each prints, or raises what is wrong."""
