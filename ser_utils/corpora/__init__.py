"""Corpora of emotional speech as utterance tables: the published ones, the demo corpus and the reader's own."""

from collections.abc import Iterable

from ser_utils.corpora.facts import CORPORA
from ser_utils.corpora.loading import EMOTIONS, inspect_corpus, load_corpus

__all__ = ["CORPORA", "EMOTIONS", "emotions_in_order", "inspect_corpus", "load_corpus"]


def emotions_in_order(emotions: Iterable[str]) -> list[str]:
    """Put emotions in the one order that is used everywhere, each once.

    >>> emotions_in_order(["sadness", "anger", "sadness"])
    ['anger', 'sadness']
    """
    present = set(emotions)
    return [emotion for emotion in EMOTIONS if emotion in present]
