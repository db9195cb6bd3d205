"""
The key hierarchy: a tree of keys per region whose root is replaced, and destroyed, at every seal.

This package knows nothing of documents, orders or people, and never imports `vault`.
"""
