"""
The rules of the protocol, each of which the checker can take away.

What happens without a rule is written where the rule is asked for; `checker.py` says in which
scenario its absence does harm.
"""

RULES = {
    "fresh root key": "the switch gives the root a fresh key",
    "fresh scope keys": "the switch gives every dirty scope a fresh key",
    "fresh node keys": "the switch gives every node above what is dirty a fresh key",
    "patched leaf is dirty": "a scope that is re-keyed before the switch leaves its leaf dirty",
    "no chain": "no generation is wrapped under another",
    "push down under a fresh key": "the node that takes over a full root's page has its own key",
    "a move dirties": "a data key that moves leaves the scope it was in dirty",
    "foreign key": "no wrap under a scope key that was replaced is committed",
    "mirror first": "a generation dies only when the mirror holds the tree of a later one",
    "standbys first": "a generation dies only when the standby has replayed the switch",
    "gate reads again": "the gate looks at the primary as it is, not at what was switched",
    "new numbers": "a generation's number is above every one that the custodian holds",
    "highest first": "of several retired generations the highest is destroyed first",
    "adopt strangers": "generations that only the custodian knows are retired by the next seal",
    "later ones wait": "a retired generation above the tree's own waits for the next switch",
    "finish first": "a seal finishes what an earlier one left before it names a generation",
    "all up to": "sealed is what noted a generation up to which all are destroyed",
    "note at the shred": "a shred notes the generation that the tree has as it commits",
    "tombstones": "a data key that left the tree is known to have left it",
    "tombstones always": "a restore heeds that, whatever the generations of both states",
    "log on restore": "a restore repeats the shreds that were published",
    "log without rows": "it does so for data keys without a document's row, too",
    "notes anew": "a restore notes its generation at every shred that is not sealed",
    "merge keys": "two states of one generation are merged key by key",
    "later tree": "of two trees a restore takes that of the later generation, then revision",
    "dirty scopes after restore": "a restore leaves every scope dirty",
    "dirty nodes after restore": "a restore leaves every node dirty",
    "guard": "a database that is behind its bucket serves nothing before it is restored",
    "uploads end": "an upload that was under way does not survive a fail-over",
}
ALL = frozenset(RULES)
