"""
The key of hashed fields: a secret that everybody has who publishes or joins them.

Whoever has it can find out short values by trying all; whoever loses it cannot go on with the hashes.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from rowcast.errors import ConfigurationError

_CHARACTERS_MIN = 32
_NAMED_BY = b"rowcast: the id of a hash key"


@dataclass(frozen=True, slots=True)
class HashKey:
    """A key; *secret* is never shown, *id* tells it from others and no more."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return hmac.new(self.secret, _NAMED_BY, sha256).hexdigest()[:16]


def hash_key(text: str, where: str) -> HashKey:
    """
    The key that *text*, which stands at *where*, is: its UTF-8 bytes.

    Raises:
        ConfigurationError: it is too short to be a secret.

    """
    if len(text) < _CHARACTERS_MIN:
        message = f"has {len(text)} characters; a key that can be guessed hides nothing"
        raise ConfigurationError(
            message, where=where, fix=f"at least {_CHARACTERS_MIN}, such as `openssl rand -hex 32`"
        )
    return HashKey(text.encode())
