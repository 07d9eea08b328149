"""AESDD: Greek actors say 19 texts, and improvise one, with five emotions."""

from ser_utils.corpora.facts.grammar import Corpus, parse_name, people


def _parse(path):
    pattern = r"(?P<code>[a-z])(?P<sentence>\d\d) ?\(0?(?P<speaker>\d)\) ?[ab]?"
    facts = parse_name(pattern, path.stem, "a01 (1).wav")
    facts["code"] = facts["code"].lower()
    if facts["sentence"] == "20":  # improvised anew by every actor for every emotion
        facts["sentence"] = "20{code}{speaker}".format(**facts)
    return facts | {"utterance_id": path.stem}


CORPUS = Corpus(
    name="aesdd",
    title="AESDD",
    place=3,
    language="el",
    n_files=605,
    # "5 (3 female and 2 male)", later more: its documentation does not say which number is whose
    speakers=people(undocumented="1 2 3 4 5 6"),
    emotion_of_code=dict(a="anger", d="disgust", f="fear", h="happiness", s="sadness"),
    parse=_parse,
    layout="aesdd/*.wav, or in a folder per emotion",
    broken=("s05 (3)",),
    how_to_get="Its authors publish it at http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/ (a link "
    "at the foot of the page); a re-publication under CC BY 4.0 is at "
    "https://huggingface.co/datasets/EdwardLin2023/AESDD.",
    licence="CC BY 4.0 as re-published; cite the authors",
    may_be_shared=True,
    models_may_be_shared=True,
    citation="Vryzas, Kotsakis, Liatsou, Dimoulas, Kalliris: Speech emotion recognition for performance "
    "interaction. Journal of the Audio Engineering Society 66(6), 2018, 457-467.",
    home="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
)
