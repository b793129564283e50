"""Peers' texts without the characters that no reader sees and that a model would learn.

Control characters but tab and line ends are refused by the protocol. What is left are formatting
characters: those that reorder or hide text carry nothing that an answer needs, and can carry a
message. They are taken out rather than refused, before scoring and training: honest models write
one now and then, and byte-level tokenizers write U+FFFD, which is visible and stays. Joiners and
variation selectors are parts of scripts and emoji and stay too, one at a time.

Source: Unicode Standard Annex 9 (bidirectional algorithm), Technical Report 36 (security).
"""

import re

# Embeddings, overrides and isolates; zero-width space, word joiner and invisible operators; byte
# order mark; soft hyphen; Mongolian vowel separator; line and paragraph separators stay (visible
# as line ends); interlinear annotations; tags; variation selectors 17 to 256.
_HIDDEN = re.compile(
    "[\u202a-\u202e\u2066-\u206f\u200b\u2060-\u2065\ufeff\u00ad\u180e\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
# Joiners, direction marks and variation selectors: a run of them writes bits.
_RUN = re.compile("([\u200c-\u200f\u061c\ufe00-\ufe0f])[\u200c-\u200f\u061c\ufe00-\ufe0f]+")
_ANY = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """`text` without hidden characters, and with the first only of a run of joiners.

    >>> visible("4\\u202e2\\u200b"), visible("a\\u200d\\u200c\\u200db") == "a\\u200db"
    ('42', True)
    """
    if text.isascii() or not _ANY.search(text):
        return text
    return _RUN.sub(r"\1", _HIDDEN.sub("", text))
