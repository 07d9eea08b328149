"""Corpora of emotional speech as utterance tables: the published ones, the demo corpus and the reader's own."""

from ser_utils.corpora.facts import CORPORA
from ser_utils.corpora.loading import EMOTIONS, inspect_corpus, load_corpus

__all__ = ["CORPORA", "EMOTIONS", "inspect_corpus", "load_corpus"]
