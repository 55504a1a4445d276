#!/usr/bin/env python3
"""Train fable's tokenizer: byte-level BPE, GPT-2 pre-tokenizer, 4,096 tokens.

    python3 tokenizer.py --corpus train-*.txt.gz --out run/tokenizer.json

The corpus is plain text (gzip or not) with `<|endoftext|>` on its own line between
documents. That marker becomes token 0 and opens every document: it is the model's
beginning-of-text and end-of-text token at once.
"""
import argparse
import gzip
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def documents(paths):
    """Yield the corpus's documents, stripped, in file order."""
    for path in paths:
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as file:
            for text in file.read().split(END):
                if text.strip():
                    yield text.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", required=True, help="text files, .gz allowed")
    parser.add_argument("--out", default="run/tokenizer.json", help="where the tokenizer goes")
    parser.add_argument("--vocab", type=int, default=4096, help="tokens in all, bytes and marker included")
    args = parser.parse_args()

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's splitting rule
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents(args.corpus), trainers.BpeTrainer(
        vocab_size=args.vocab,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes: nothing is ever unknown
    ))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    print(f"{args.out}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
