#!/usr/bin/env python3
"""Continue a prompt with an exported GGUF: a plain reference, with no key/value cache.

    python3 sample.py fable-q8_0.gguf --prompt "Once upon a time" --seed 1 --temperature 0.7
"""
import argparse

import torch

from export import load, load_tokenizer
from tokenizer import END


@torch.no_grad()
def generate(model, ids, end, count, temperature, top_k, generator):
    """Append up to count tokens to ids, stopping at end. Temperature 0 takes the best token."""
    ids = list(ids)
    for _ in range(count):
        logits = model(torch.tensor([ids[-model.config.context:]]))[0, -1]  # [V]
        if temperature == 0:
            token = int(logits.argmax())
        else:
            best, index = logits.topk(top_k)
            token = int(index[torch.multinomial((best / temperature).softmax(-1), 1, generator=generator)])
        if token == end:
            break
        ids.append(token)
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file written by export.py")
    parser.add_argument("--prompt", default="Once upon a time", help="text to continue")
    parser.add_argument("--tokens", type=int, default=160, help="tokens to add at most")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    parser.add_argument("--top-k", type=int, default=40, help="tokens to draw from")
    parser.add_argument("--seed", type=int, default=1, help="of the draws")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, reader = load(args.model)
    tokenizer = load_tokenizer(reader)
    end = tokenizer.token_to_id(END)
    prompt = [end, *tokenizer.encode(args.prompt).ids]
    ids = generate(model, prompt, end, args.tokens, args.temperature, args.top_k,
                   torch.Generator().manual_seed(args.seed))
    print(tokenizer.decode(ids[1:]))


if __name__ == "__main__":
    main()
