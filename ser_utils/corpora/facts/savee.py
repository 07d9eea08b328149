"""SAVEE: four men say 120 English texts with seven emotions."""

from ser_utils.corpora.facts.grammar import Corpus, parse_name, people


def _parse(path):
    pattern = r"(?:(?P<speaker>[a-z]{2})_)?(?P<code>sa|su|[a-z])(?P<number>\d\d)"
    facts = parse_name(pattern, path.stem, "DC_a01.wav or DC/a01.wav")
    number, code = facts["number"], facts["code"].lower()
    speaker = (facts["speaker"] or path.parent.name).upper()
    # "3 common, 2 emotion-specific and 10 generic sentences", in this order. Twelve of the neutral ones repeat
    # the emotion-specific ones; which do is not documented, so a split by sentence may share those.
    sentence = number if number <= "03" else code + number
    utterance_id = f"{speaker}_{code}{number}"
    return {"utterance_id": utterance_id, "speaker": speaker, "code": code, "sentence": sentence}


CORPUS = Corpus(
    name="savee",
    title="SAVEE",
    place=5,
    language="en",
    n_files=480,
    speakers=people(male="DC JE JK KL"),
    emotion_of_code=dict(a="anger", d="disgust", f="fear", h="happiness", n="neutral", sa="sadness", su="surprise"),
    parse=_parse,
    layout="savee/*.wav (DC_a01.wav), or savee/AudioData/DC … KL/*.wav (a01.wav)",
    folders=("surreyaudiovisualexpressedemotion", "surreyaudiovisualexpressedemotionsavee"),
    how_to_get="Register at http://kahlan.eps.surrey.ac.uk/savee/ (Download); the password comes by e-mail. "
    "AudioData.zip is what is needed.",
    licence="for research, after registration",
    citation="Haq, Jackson: Multimodal emotion recognition. In: Machine Audition, IGI Global, 2010, 398-423.",
    home="http://kahlan.eps.surrey.ac.uk/savee/",
)
