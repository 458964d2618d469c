"""Token ids of odd texts by transformers' CLIPTokenizerFast, with the part of CLIP's vocabulary that they need.

Needs transformers and CLIP's vocabulary file, which open_clip_torch brings:
    python tests/golden/make_clip_tokens.py …/open_clip/bpe_simple_vocab_16e6.txt.gz
The part has the real ids, and every merge whose result occurs in one of the texts, so that each is joined as by all.
"""

import gzip
import json
import pathlib
import sys
import tempfile
import unicodedata

import numpy as np
from transformers import CLIPTokenizerFast

TEXTS = [
    "",
    " ",
    "a",
    "a photo of a cat",
    "A Photo  of\ta\nCAT  ",
    "woman firefighter, medium skin tone",
    "a red 3 left of a blue 7, which is above a green 1",
    "an astronaut riding a horse in photorealistic style",
    "it's they're I've I'm we'll he'd don't",
    "IT'S O'CLOCK 'sup s's ''s",
    "1234567890 1,000.50 3.14 x2 2x mp3",
    "½ ² Ⅷ ٣ 五",
    "hello!!! ... ?!? --- ### $$$ %^&*()",
    "e-mail: someone@example.com, https://example.com/a_b?c=d",
    "under_score camelCase snake_case",
    "café naïve façade Ångström Straße",
    "cafe\u0301 A\u030angstro\u0308m",
    "ŒUVRE İstanbul ΑΘΗΝΑ",
    "безымянный человек",
    "여자 소방관, 갈색 피부",
    "왼쪽에 있는 빨간 3",
    "消防士の女性",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดี",
    "😀",
    "👩🏽‍🚒 and 🇰🇷!",
    "❤️‍🔥 ☕️ ™ © ®",
    "zero\u200bwidth non\u00a0breaking\u3000wide",
    "“quotes” ‘single’ «guillemets» – — …",
    "<|startoftext|> in the middle <|endoftext|>",
    "< | startoftext | >",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "the " * 100,
    "word " * 74 + "photorealistic supercalifragilistic",
    "&amp; &lt;b&gt; &#39;",
    "\\n \\t C:\\path",
    "mr. o'neill's 90's rock'n'roll",
    "\u0000 control \u0007",
    "ﬁne ﬂow ℌ №5",
    "¡Hola! ¿Qué tal?",
]


def letters() -> dict[int, str]:
    """A printable character for each byte, in the order of their ids."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def main(file: str) -> None:
    lines = gzip.decompress(pathlib.Path(file).read_bytes()).decode().splitlines()[1 : 49152 - 256 - 2 + 1]
    letter = letters()
    names = [*letter.values(), *(c + "</w>" for c in letter.values()), *("".join(line.split()) for line in lines)]
    ids = {name: i for i, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "vocab.json").write_text(json.dumps(ids))
        pathlib.Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *lines]))
        tokenizer = CLIPTokenizerFast(f"{folder}/vocab.json", f"{folder}/merges.txt")
        tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=77)["input_ids"]

    words = [word for text in TEXTS for word in unicodedata.normalize("NFC", text).lower().split()]
    spelt = " ".join("".join(letter[b] for b in word.encode()) for word in words)
    kept = [line for line in lines if "".join(line.split()).removesuffix("</w>") in spelt]
    part = {"".join(line.split()): ids["".join(line.split())] for line in kept}
    part |= {name: ids[name] for name in names[:512]} | {name: ids[name] for name in list(ids)[-2:]}
    np.savez_compressed(
        pathlib.Path(__file__).with_name("clip_tokens.npz"),
        texts=np.array(json.dumps(TEXTS)),
        tokens=np.array(tokens, np.int32),
        vocab=np.array(json.dumps(part)),
        merges=np.array("\n".join(["#version: 0.2", *kept])),
    )


if __name__ == "__main__":
    main(sys.argv[1])
