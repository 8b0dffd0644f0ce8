"""A small tokenizer as SentencePiece writes it, and what transformers' `T5Tokenizer` makes of texts with it: what
`src/pipeline/spiece/tests.rs` compares with.

    python tests/oracle/spiece_transformers.py                  (made with sentencepiece 0.2.3, transformers 5.24)

The model is trained on the text below as T5's was: a unigram model with the rules `nmt_nfkc` for characters, numbers 0 to 2 for
padding, end and unknown, and bytes for nothing.
"""
import json
import shutil
from pathlib import Path

import sentencepiece
from transformers import T5Tokenizer

FOLDER = Path(__file__).parent.parent / "data" / "tokenizer" / "t5"
SENTENCES = """A red ship sails over the sea in the morning.
The white bird flies over the black mountain and the blue lake.
Two children play with a green ball in the snow, while the old dog sleeps.
A slow camera moves along the river; cinematic light, highly detailed, 4k.
Close-up of a cat's face, looking left and right, on a black background.
The city at night: cars, rain and neon signs reflected in the street.
An astronaut walks on the moon, and the earth rises behind him.
She sells sea shells by the sea shore, 12345 of them for $67.89!
""".splitlines()
TEXTS = [
    "A red ship sails over the sea.", "", " ", "a", "  two   spaces  and a\ttab\nnew line ", "blue", "Blueblueblue",
    "ﬁne ＡＢＣ １２３ ½ ™ ㈱ e\u0301 \u00e9 \u200bzero", "ärger Straße naïve", "日本語のテキスト", "emoji 🚀 here", "x" * 60,
    "<extra_id_0> in <extra_id_99> out <extra_id_100>", "</s> ends <pad> here <unk> and goes on", "▁under▁lines",
    "cat's, 4k; $67.89! (12345)", "the\u00a0hard\u3000space", "\u0000\u0007 control", "a red ship " * 40,
]


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_prefix=str(FOLDER / "spiece"), vocab_size=220, hard_vocab_limit=False, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", minloglevel=2)
    (FOLDER / "spiece.vocab").unlink()
    cases = []
    for extra in (100, 3):
        tokenizer = T5Tokenizer.from_pretrained(FOLDER, extra_ids=extra)
        for text in TEXTS:
            cases.append(dict(extra_ids=extra, text=text, ids=tokenizer(text).input_ids))
    (FOLDER / "cases.json").write_text(json.dumps(cases, ensure_ascii=True, indent=None, separators=(",", ":")) + "\n")
    for case in cases[:12]:
        print(case)
    print((FOLDER / "spiece.model").stat().st_size)


main()
