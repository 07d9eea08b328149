"""TESS: two women, 26 and 64 years old, say 200 English words with seven emotions."""

from ser_utils.corpora.facts.grammar import Archive, Corpus, parse_name, people


def _parse(path):
    pattern = r"(?P<speaker>OAF?|YAF)_(?P<sentence>[a-z]+)_(?P<code>[a-z]+)"
    facts = parse_name(pattern, path.stem, "OAF_back_angry.wav")
    # one file of the original lacks a letter: OA_bite_neutral.wav
    facts["speaker"] = {"OA": "OAF"}.get(facts["speaker"].upper(), facts["speaker"].upper())
    facts["sentence"], facts["code"] = facts["sentence"].lower(), facts["code"].lower()
    return facts | {"utterance_id": "{speaker}_{sentence}_{code}".format(**facts)}


CORPUS = Corpus(
    name="tess",
    title="TESS",
    place=4,
    language="en",
    n_files=2800,
    speakers=people(female="OAF YAF"),  # the older and the younger one
    emotion_of_code={"disgust": "disgust", "fear": "fear", "neutral": "neutral"}
    | dict(angry="anger", happy="happiness", ps="surprise", sad="sadness"),
    parse=_parse,  # a sentence is "Say the word …" and its code the word
    layout="tess/OAF_angry … YAF_sad/*.wav",
    folders=("torontoemotionalspeechset", "torontoemotionalspeechsettess", "tesstorontoemotionalspeechsetdata"),
    source=Archive(
        "https://borealisdata.ca/api/access/dataset/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF", is_steady=False
    ),
    licence="CC BY-NC-ND 4.0",
    citation="Pichora-Fuller, Dupuis: Toronto emotional speech set (TESS). Borealis, 2020. doi:10.5683/SP2/E8H2MF.",
    home="https://doi.org/10.5683/SP2/E8H2MF",
)
