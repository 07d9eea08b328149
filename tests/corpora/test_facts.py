import textwrap

import pytest

from ser_utils.corpora import facts, recordings
from ser_utils.corpora.loading import CORPORA, load_corpus
from tests.corpora.synthetic import record
from tools.check_data import check_corpus, describe
from tools.download import DownloadError, download_corpus


def test_a_made_up_corpus_is_one_file(tmp_path, monkeypatch):
    text = '''
        """Klingon: two warriors growl."""

        from ser_utils.corpora.facts.grammar import Corpus, parse_name, people


        def _parse(path):
            facts = parse_name(r"(?P<speaker>[kw])_(?P<code>[a-z])_.*", path.stem, "k_a_1.wav")
            return facts | {"utterance_id": path.stem}


        CORPUS = Corpus(
            name="klingon", title="Klingon", language="tlh", n_files=4, speakers=people(female="k", male="w"),
            emotion_of_code={"a": "anger", "h": "happiness"}, parse=_parse, layout="klingon/*.wav", licence="none",
            how_to_get="Ask in Qo'noS.", may_be_shared=True, n_phonemes=26,
        )
    '''
    (tmp_path / "klingon.py").write_text(textwrap.dedent(text))
    monkeypatch.setattr(facts, "__path__", [*facts.__path__, str(tmp_path)])
    monkeypatch.setattr(recordings, "REPOSITORY", tmp_path / "repository")
    corpora = facts.find_corpora()
    assert list(corpora) == [*CORPORA, "klingon"] and corpora["klingon"].may_be_shared
    monkeypatch.setitem(CORPORA, "klingon", corpora["klingon"])
    with pytest.raises(DownloadError, match="Ask in Qo'noS"):
        download_corpus("klingon", tmp_path)
    for name in ("k_a_1", "k_h_1", "w_a_1"):
        record(tmp_path / "Klingon" / f"{name}.wav")
    assert load_corpus("klingon", tmp_path)["gender"].tolist() == ["female", "female", "male"]
    (check,) = check_corpus("klingon", tmp_path)
    assert "usable, partial: 3 of 4 files" in describe(check)


def test_only_what_anybody_may_pass_on_is_shared():
    assert [name for name, corpus in CORPORA.items() if corpus.may_be_shared] == ["emodb", "aesdd"]


def test_what_the_prototype_paper_says_of_its_corpora_is_kept():
    told = {name: (corpus.n_phonemes, corpus.shown_speakers) for name, corpus in CORPORA.items() if corpus.n_phonemes}
    assert told == {
        "emodb": (45, ("09", "10", "13", "15")),
        "ravdess": (44, ("06", "07", "17", "20")),
        "emomatch": (24, ("07", "29", "35", "37")),
    }
    assert all(set(CORPORA[name].speakers) >= set(shown) for name, (_, shown) in told.items())
