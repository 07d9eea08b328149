"""EmoMatchSpanishDB: up to fifty speakers say Spanish sentences with seven emotions."""

import unicodedata

from ser_utils.corpora.facts.grammar import Corpus, parse_name, people

# Genders as the prototype paper's code lists them, for the 29 speakers it uses.
_MEN = "01 02 05 09 12 13 22 23 31 35 36 37 43"
_WOMEN = "03 04 06 07 08 10 11 20 25 29 33 40 41 45 46 49"
_OTHERS = " ".join(f"{n:02d}" for n in range(1, 51) if f"{n:02d}" not in f"{_MEN} {_WOMEN}")


def _parse(path):
    pattern = r"(?P<speaker>\d\d)_(?P<code>[^\W\d_]+)_(?P<sentence>\d\d)"
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()  # Alegría, Alegria
    facts = parse_name(pattern, plain, "07_Alegria_02.WAV")
    facts["code"] = facts["code"].capitalize()
    return facts | {"utterance_id": "{speaker}_{code}_{sentence}".format(**facts)}


CORPUS = Corpus(
    name="emomatch",
    title="EmoMatchSpanishDB",
    place=7,
    language="es",
    n_files=0,  # 2,005 and 2,050 are both reported
    speakers=people(male=_MEN, female=_WOMEN, undocumented=_OTHERS),
    emotion_of_code={"Ira": "anger", "Asco": "disgust", "Miedo": "fear", "Alegria": "happiness"}
    | {"Neutro": "neutral", "Tristeza": "sadness", "Sorpresa": "surprise"},
    parse=_parse,
    layout="emomatch/*.WAV",
    folders=("emomatchspanishdb",),
    how_to_get="Ask its authors, Esteban García Cuesta and colleagues, at the address given in "
    "https://doi.org/10.1007/s11042-023-15959-w.",
    licence="for research, from its authors",
    citation="Garcia-Cuesta, Barba Salvador, Gachet Páez: EmoMatchSpanishDB: study of speech emotion recognition "
    "machine learning models in a new Spanish elicited database. Multimedia Tools and Applications 83, 2024, "
    "13093-13112.",
    home="https://doi.org/10.1007/s11042-023-15959-w",
    n_phonemes=24,
    shown_speakers=("07", "29", "35", "37"),
)
