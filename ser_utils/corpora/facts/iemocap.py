"""IEMOCAP: ten actors in five sessions of scripted and improvised scenes, in English."""

import re

from ser_utils.corpora.facts.grammar import Corpus, GrammarError, parse_name
from ser_utils.tables import list_files


def _parse(path):
    if re.fullmatch(r"Ses0\d[FM]_(impro|script)\w*?", path.stem) and "sentences" not in path.parts:
        raise GrammarError("a whole dialogue; only single sentences are used", foreign=True)
    facts = parse_name(
        r"Ses(?P<session>0[1-5])[FM]_(?P<sentence>impro\d\d|script\d\d_\d)[a-z]?_(?P<gender>[FM])[\dX]{3}",
        path.stem,
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    )
    # the letter after the session says who wore the markers; the last one says who speaks
    speaker = "Ses{session}{gender}".format(**facts)
    # improvised scenes share their words, if not their sentences: the scene is what is kept together
    return {"utterance_id": path.stem, "speaker": speaker, "sentence": facts["sentence"]}


def _find_codes(folder):
    codes = {}
    for path in list_files(folder).files:
        if re.search(r"\bEmoEvaluation/Ses\w+\.txt$", path):
            text = (folder / path).read_text("utf-8", errors="replace")
            codes |= re.findall(r"^\[[\d.]+ - [\d.]+\]\s+(Ses\w+)\s+(\w{3})\s+\[", text, re.MULTILINE)
    return codes


CORPUS = Corpus(
    name="iemocap",
    title="IEMOCAP",
    place=8,
    language="en",
    n_files=5531,  # of 10,039: those of the usual four classes
    speakers={f"Ses0{n}{gender[0].upper()}": gender for n in range(1, 6) for gender in ("female", "male")},
    # excitement is counted as happiness by the four-class convention
    emotion_of_code=dict(ang="anger", hap="happiness", exc="happiness", neu="neutral", sad="sadness")
    | dict.fromkeys(("dis", "fea", "fru", "oth", "sur", "xxx"), ""),
    parse=_parse,
    find_codes=_find_codes,
    layout="iemocap/Session1 … Session5/{sentences/wav/*/*.wav, dialog/EmoEvaluation/*.txt}",
    folders=("iemocapfullrelease",),
    how_to_get="Ask the Signal Analysis and Interpretation Laboratory of USC for a release through the form at "
    "https://sail.usc.edu/iemocap/iemocap_release.htm; it may not be passed on.",
    licence="for research, on request; not to be passed on",
    citation="Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional "
    "dyadic motion capture database. Language Resources and Evaluation 42(4), 2008, 335-359.",
    home="https://sail.usc.edu/iemocap/",
)
