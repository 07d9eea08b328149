"""What each corpus is, and how its file names are read: one file a corpus, whose CORPUS is found here."""

import importlib
import pkgutil

from ser_utils.corpora.facts.grammar import EMOTIONS, Corpus, GrammarError
from ser_utils.tables import CorpusError

__all__ = ["CORPORA", "EMOTIONS", "Corpus", "CorpusError", "GrammarError", "find_corpora"]


def find_corpora() -> dict[str, Corpus]:
    """Read the CORPUS of every file of this folder.

    Returns
    -------
    dict of a corpus's name to its facts, in the order of `Corpus.place`
    """
    modules = [importlib.import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)]
    corpora = [module.CORPUS for module in modules if hasattr(module, "CORPUS")]
    return {corpus.name: corpus for corpus in sorted(corpora, key=lambda corpus: (corpus.place, corpus.name))}


CORPORA = find_corpora()
