#!/usr/bin/env python3
"""Small tokenizers with ids from the original implementations: tests/fixtures/tokenizers.

Each folder holds a tokenizer (trained here on the few sentences below) and cases.jsonl: a text, its
ids with and without special tokens, and what the original decodes them to. Characters are of Unicode
13 or older, so that the tables of every library agree.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3
    /tmp/venv/bin/python tools/make_tokenizer_fixtures.py
"""
import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders as D
from tokenizers import models as M
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P
from tokenizers import processors as PP
from tokenizers import trainers as T

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizers"

SENTENCES = """
The mill by the river turned all night, and nobody in the village could say who had oiled the wheel.
"I've counted 12 sacks," said the miller, "but there were 1,345 yesterday; we'll count them again."
Don't ask the cat. She'd tell you it's raining in seven languages, and she can't count past 3.
On 2024-05-17 the price was 19.99 (about half), or so the BAKER's sign claimed: FRESH BREAD!!!
for (int i = 0; i < 10; i++) { total += weights[i] * x[i]; }  // sum of products
Der Müller zählte die Säcke, während größere Wagen über die Brücke rollten.
Le garçon a mangé déjà trois crêpes à l'école; « c'est très bon », dit-il.
El niño corrió mañana y noche hasta el pequeño árbol; ¿quién lo vio? ¡Nadie!
Мельник считал мешки всю ночь, а утром река молчала.
Η μυλωνού μέτρησε τα τσουβάλια και γέλασε.
粉挽きは夜通し袋を数えた。カタカナとひらがなも数えた。
磨坊主整夜数着麻袋，河水很安静。
방앗간 주인은 밤새 자루를 세었다.
चक्कीवाले ने रात भर बोरियाँ गिनीं।
طاحونة على النهر تدور طوال الليل.
""".strip().split("\n")

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FRONT, SUFFIX = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (FRONT + UPPER + "*" + LOWER + "+" + SUFFIX + "|" + FRONT + UPPER + "+" + LOWER + "*" + SUFFIX +
         r"|\p{N}{1,3}" + TAIL)
TEKKEN = FRONT + UPPER + "*" + LOWER + "+|" + FRONT + UPPER + "+" + LOWER + r"*|\p{N}" + TAIL
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]

WORDS = ["'s", "'S", "'ll", "'LL", "'re", "'Re", "'ſ", "can't", "DON'T", " the", "THE", "Hello", "wORLD", "ﬁ",
         "ΑΒΓ", "μέτρ", "Мельник", "МИР", "磨坊", "カタカナ", "ひら", "방앗간", "हिन्दी", "العربية", "👍🏽", "👨‍👩‍👧", "e\u0301",
         "é", "Å", "A\u030a", "½", "²", "Ⅷ", "٣", "123", "1234567", "3.14", "1,000", "\n", "\r\n", "\n\n", "  ",
         "   ", "\t", "\t\t", "\u00a0", "\u2028", "\u3000", "▁", "▁▁", "<0x0A>", "<s>", "</s>", "//", "...", "!!!",
         "?!", "--", "_", "a_b", "{}", "()", "#in", "İ", "ß", "ǅ", "ʰ", "ª", "\u0300", "\u200d", "\ufffd", "\x01"]


def texts():
    rng = random.Random(20240517)
    out = ["", " ", "  ", "\n", "a" * 200, " " * 200, "ab" * 150] + SENTENCES
    for _ in range(60):
        out.append("".join(rng.choice(WORDS) + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 25))))
    return out


def write_cases(folder, encode, decode):
    with open(folder / "cases.jsonl", "w", encoding="utf-8") as file:
        for text in texts():
            ids, special = encode(text, False), encode(text, True)
            case = {"text": text, "ids": ids, "special": special, "decoded": decode(ids)}
            file.write(json.dumps(case, ensure_ascii=True) + "\n")


def save(name, tokenizer):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    write_cases(folder, lambda text, special: tokenizer.encode(text, add_special_tokens=special).ids,
                lambda ids: tokenizer.decode(ids, skip_special_tokens=False))


def bpe_trainer(**options):
    return T.BpeTrainer(vocab_size=options.pop("vocab_size", 420), show_progress=False, **options)


def byte_level(name, patterns, normalizer=None, added=()):
    t = Tokenizer(M.BPE())
    if normalizer is not None:
        t.normalizer = normalizer
    t.pre_tokenizer = P.Sequence([P.Split(Regex(p), "isolated") for p in patterns] +
                                 [P.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = D.ByteLevel()
    t.train_from_iterator(SENTENCES, bpe_trainer(initial_alphabet=P.ByteLevel.alphabet(),
                                                 special_tokens=["<|begin|>", "<|end|>"]))
    t.post_processor = PP.Sequence([PP.ByteLevel(), PP.TemplateProcessing(
        single="<|begin|> $A <|end|>", pair=None, special_tokens=[("<|begin|>", 0), ("<|end|>", 1)])])
    t.add_tokens(list(added))
    save(name, t)


def characters(name, pre_tokenizer, normalizer=None, decoder=None, trainer=None, **options):
    t = Tokenizer(M.BPE(unk_token="<unk>", **options))
    if normalizer is not None:
        t.normalizer = normalizer
    if pre_tokenizer is not None:
        t.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        t.decoder = decoder
    specials = ["<unk>"]
    if options.get("byte_fallback"):
        specials += ["<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(SENTENCES, trainer or bpe_trainer(
        vocab_size=500 if options.get("byte_fallback") else 250, special_tokens=specials, limit_alphabet=90))
    # Byte tokens are no added tokens in real files.
    document = json.loads(t.to_str())
    document["added_tokens"] = [a for a in document["added_tokens"] if not a["content"].startswith("<0x")]
    save(name, Tokenizer.from_str(json.dumps(document)))


def hugging_face():
    byte_level("byte-gpt4", [GPT4])
    byte_level("byte-qwen2", [GPT4.replace("{1,3}", "")], N.NFC())
    byte_level("byte-o200k", [O200K])
    byte_level("byte-tekken", [TEKKEN])
    byte_level("byte-deepseek3", DEEPSEEK)
    byte_level("byte-regex", [r"\w+|[^\w\s]+|\s+$|\s+"])
    byte_level("byte-added", [GPT4], N.Lowercase(), [
        AddedToken("can't", single_word=True, normalized=False), AddedToken("THE", lstrip=True, normalized=True),
        AddedToken("Hello", rstrip=True, normalized=False), AddedToken("!!", normalized=False),
        AddedToken("...", lstrip=True, rstrip=True, normalized=False), AddedToken("!!!?", normalized=False),
        AddedToken("<s>", lstrip=True, rstrip=True, normalized=False, special=True)])
    llama = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    characters("llama", None, N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]), llama,
               byte_fallback=True, fuse_unk=True)
    characters("metaspace-first", P.Metaspace(prepend_scheme="first", split=False), None, llama,
               byte_fallback=True, fuse_unk=True)
    characters("metaspace-split", P.Metaspace(prepend_scheme="always"), None, D.Metaspace())
    characters("gemma", P.Split(" ", "merged_with_previous"), N.Replace(" ", "▁"),
               D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]), byte_fallback=True, fuse_unk=True)
    characters("clip", P.Whitespace(), N.Sequence([N.NFC(), N.Lowercase()]), D.BPEDecoder(), end_of_word_suffix="</w>",
               trainer=bpe_trainer(special_tokens=["<unk>"], end_of_word_suffix="</w>"))
    cuts = P.Sequence([P.WhitespaceSplit(), P.Punctuation("contiguous"), P.Digits(True),
                       P.Split(Regex("[aeiou]"), "merged_with_previous"), P.Split("t", "merged_with_next"),
                       P.CharDelimiterSplit("q"), P.FixedLength(7)])
    characters("cuts", cuts)
    characters("inverted", P.Sequence([P.Split(Regex("[a-m]+"), "merged_with_next", invert=True), P.Digits(False)]),
               N.Sequence([N.NFKD(), N.StripAccents(), N.Strip(), N.Nmt(), N.Replace(Regex(r"\s+"), " ")]))
    bert = Tokenizer(M.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    bert.normalizer, bert.pre_tokenizer, bert.decoder = N.BertNormalizer(), P.BertPreTokenizer(), D.WordPiece()
    bert.train_from_iterator(SENTENCES, T.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    bert.post_processor = PP.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    save("bert", bert)
    words = Tokenizer(M.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = P.Whitespace()
    words.train_from_iterator(SENTENCES, T.WordLevelTrainer(vocab_size=300, special_tokens=["<unk>"],
                                                            show_progress=False))
    save("words", words)
    unigram = Tokenizer(M.Unigram())
    unigram.normalizer, unigram.pre_tokenizer, unigram.decoder = N.NFKC(), P.Metaspace(), D.Metaspace()
    unigram.train_from_iterator(SENTENCES * 4, T.UnigramTrainer(
        vocab_size=320, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False))
    save("unigram", unigram)


def sentence_piece():
    source = OUT / "sentences.txt"
    OUT.mkdir(parents=True, exist_ok=True)
    source.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    models = {
        "spm-bpe": dict(model_type="bpe", byte_fallback=True, character_coverage=0.98),
        "spm-bpe-user": dict(model_type="bpe", user_defined_symbols=["can", "▁the", "磨坊", "--"]),
        "spm-unigram": dict(byte_fallback=True, character_coverage=0.98, remove_extra_whitespaces=False),
        "spm-unigram-user": dict(user_defined_symbols=["can", "▁the▁", "磨坊"], add_dummy_prefix=False),
        "spm-suffix": dict(treat_whitespace_as_suffix=True),
    }
    for name, options in models.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        sentencepiece.SentencePieceTrainer.train(
            input=str(source), model_prefix=str(folder / "tokenizer"), vocab_size=450, hard_vocab_limit=False,
            normalization_rule_name="identity", minloglevel=2, num_threads=1, **options)
        (folder / "tokenizer.vocab").unlink()
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        clean = [t for t in texts() if "<s>" not in t and "</s>" not in t]
        with open(folder / "cases.jsonl", "w", encoding="utf-8") as file:
            for text in clean:
                ids = model.encode(text)
                case = {"text": text, "ids": ids, "special": [1] + ids, "decoded": model.decode(ids)}
                file.write(json.dumps(case, ensure_ascii=True) + "\n")
    source.unlink()


if __name__ == "__main__":
    hugging_face()
    sentence_piece()
