"""Tells whether a prompt is in English.

WordPiece spells German and French words with pieces that it knows from English, so the vocabulary does not tell. Small
words do. Marks of another language are its small words, and words without a capital that have a letter rarely found
in English loan words. A prompt is not in English if it has no small word of English and either

- two marks, at least one of them sure; in a prompt of up to four words, one sure small word is enough, or
- at least three likely marks that make up half of its words.

A prompt is not in English either if most of its letters are not Latin. Any other prompt counts as English.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+")

_ENGLISH = frozenset(
    _WORD.findall(
        "the and with by from into onto under its her his their this that for are has have out off at of is to"
    )
)
_SURE = frozenset(
    _WORD.findall("""
        ein eine einen einem einer eines auf und über unter zwei nicht ist
        une sur dans avec aux vers sous devant sont
        una unos unas sobre junto bajo hacia
        uma umas uns perto embaixo
        della delle degli nella nelle sulla gli vicino sopra
        een het zijn naast onder bij
        och ett på av ovanpå jest oraz
        bir ile üzerinde altında và một trên của
    """)
)
_LIKELY = frozenset(
    _WORD.findall("""
        der die das den dem des im am mit von zum
        le la les un du en de au et
        el los las con y por para del
        um o os as do da dos das em no na com
        il lo di su sul nel per i
        op van med w z nad pod przy ve için
    """)
)
_LOANED = frozenset("éèêëàâçïîôûáíóúñ")
"""Letters that words taken into English may keep, as in café, naïve and jalapeño."""
_MARKS, _MANY, _SHORT = 2, 3, 4


def is_english(prompt: str) -> bool:
    """Return False if a prompt is recognised as being in another language, else True.

    Example:
        >>> is_english("a red ball on a table"), is_english("ein roter Ball auf dem Tisch")
        (True, False)
    """
    words = _WORD.findall(unicodedata.normalize("NFC", prompt))
    letters = "".join(words)
    if 2 * sum("LATIN" in unicodedata.name(letter, "") for letter in letters) < len(letters):
        return False
    small = [word.lower() for word in words]
    if any(word in _ENGLISH for word in small):
        return True
    sure = sum(low in _SURE or _is_marked(word) for word, low in zip(words, small, strict=True))
    likely = sum(word in _LIKELY for word in small)
    if not sure:  # names have such words too: Leonardo da Vinci
        return likely < _MANY or 2 * likely < len(words)
    if len(words) <= _SHORT and any(word in _SURE for word in small):
        return False
    return sure + likely < _MARKS


def _is_marked(word: str) -> bool:
    """Return whether a word without a capital has a Latin letter that English words do not have."""
    if word[0].isupper():
        return False
    odd = [letter for letter in word if not letter.isascii() and letter not in _LOANED]
    return any("LATIN" in unicodedata.name(letter, "") for letter in odd)
