#!/usr/bin/env python3
"""Train fable (or fable-draft) on plain text, on a CPU, within a budget of minutes.

    python3 train.py --train train-*.txt.gz --valid valid.txt --out run --minutes 60
    python3 train.py ... --resume run/last.pt --minutes 20 --rate 1 0 --sequence 1024 --batch 4

One run is one phase of "warmup, stable, decay": the learning rate moves in a straight line
from --lr times the first --rate to --lr times the second over the run's minutes. A constant
phase (1 1, the default) can be cut at any time, and a decay can start from any checkpoint.
Checkpoints hold weights, optimiser state, counters and the position in the data, and are
renamed into place, never half-written.
"""
import argparse
import math
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from model import PRESETS, Config, Model
from tokenizer import END, documents


def load_tokens(paths, tokenizer, cache):
    """All documents as one stream of token ids, each opened by END. Returns (ids, text bytes)."""
    if not cache.exists():
        end, ids, size = tokenizer.token_to_id(END), [], 0
        for text in documents(paths):
            ids += [end, *tokenizer.encode(text).ids]
            size += len(text.encode())
        np.savez(cache, ids=np.array(ids, dtype=np.uint16), size=size)
    data = np.load(cache)
    return torch.from_numpy(data["ids"].astype(np.int64)), int(data["size"])


class Windows:
    """Training windows of T + 1 ids. Every document gives one window at its first token, the rest
    every T tokens from a point drawn anew each epoch; the order is a permutation of the epoch's
    windows. Everything follows from (seed, epoch, index), so that is all a checkpoint keeps."""

    def __init__(self, ids, end, sequence, seed):
        self.ids, self.sequence, self.seed = ids, sequence, seed
        self.heads = (ids == end).nonzero().flatten().tolist() + [len(ids)]
        self.epoch, self.index, self.order = 0, 0, None

    def plan(self):
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        starts = []
        for head, stop in zip(self.heads, self.heads[1:]):
            first = head + 1 + int(torch.randint(self.sequence, (), generator=generator))
            starts += [head, *range(first, stop, self.sequence)]
        starts = torch.tensor([s for s in starts if s + self.sequence < len(self.ids)])
        self.order = starts[torch.randperm(len(starts), generator=generator)]

    def batch(self, size):
        """Inputs and targets, each [size, T]."""
        if self.order is None:
            self.plan()
        if self.index + size > len(self.order):
            self.epoch, self.index = self.epoch + 1, 0
            self.plan()
        starts = self.order[self.index : self.index + size]
        self.index += size
        window = self.ids[starts[:, None] + torch.arange(self.sequence + 1)]
        return window[:, :-1], window[:, 1:]


@torch.no_grad()
def bits_per_byte(model, ids, size, sequence, precision):
    """Held-out bits per byte: ids cut into windows of `sequence`, every token predicted once."""
    model.eval()
    nats, batch = 0.0, max(1, 8192 // sequence)
    rows = math.ceil((len(ids) - 1) / sequence)
    padded = F.pad(ids, (0, rows * sequence + 1 - len(ids)), value=-1)
    inputs, targets = padded[:-1].view(rows, sequence), padded[1:].view(rows, sequence)
    for i in range(0, rows, batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(inputs[i : i + batch].clamp(min=0))
        nats += F.cross_entropy(logits.flatten(0, 1).float(), targets[i : i + batch].flatten(),
                                ignore_index=-1, reduction="sum").item()
    model.train()
    return nats / math.log(2) / size


def optimisers(model, args):
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blk.") and p.dim() == 2]
    rest = [p for n, p in model.named_parameters() if not (n.startswith("blk.") and p.dim() == 2)]
    return [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=args.weight_decay, momentum=0.95,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save(path, state):
    torch.save(state, f"{path}.part")
    os.replace(f"{path}.part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", required=True, help="training text, .gz allowed")
    parser.add_argument("--valid", nargs="+", required=True, help="held-out text")
    parser.add_argument("--tokenizer", default="run/tokenizer.json", help="written by tokenizer.py")
    parser.add_argument("--out", default="run", help="folder for checkpoints and cached tokens")
    parser.add_argument("--preset", default="fable", choices=PRESETS, help="model shape")
    parser.add_argument("--resume", help="checkpoint to go on from")
    parser.add_argument("--minutes", type=float, default=60, help="budget of this run, wall-clock minutes")
    parser.add_argument("--rate", type=float, nargs=2, default=[1, 1], metavar=("FROM", "TO"),
                        help="learning rate at the start and at the end of this run, as fractions of --lr")
    parser.add_argument("--sequence", type=int, default=256, help="tokens per window")
    parser.add_argument("--batch", type=int, default=16, help="windows per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (update RMS per weight, as AdamW's)")
    parser.add_argument("--warmup", type=int, default=100, help="steps of linear warmup")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="on the layers' matrices")
    parser.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    parser.add_argument("--precision", default="bf16", choices=["f32", "bf16"], help="of matrix products")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1, help="of weights and data order")
    parser.add_argument("--log-steps", type=int, default=50, help="steps between log lines")
    parser.add_argument("--eval-minutes", type=float, default=10, help="minutes between evaluations")
    parser.add_argument("--save-minutes", type=float, default=3, help="minutes between checkpoints")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    end = tokenizer.token_to_id(END)
    ids, size = load_tokens(args.train, tokenizer, out / "train.npz")
    held_out, held_out_size = load_tokens(args.valid, tokenizer, out / "valid.npz")
    print(f"train {len(ids)} tokens {size} bytes, held out {len(held_out)} tokens {held_out_size} bytes", flush=True)

    checkpoint = torch.load(args.resume, weights_only=True) if args.resume else None
    config = Config(**checkpoint["config"]) if checkpoint else PRESETS[args.preset]
    model = Model(config)
    windows = Windows(ids, end, args.sequence, args.seed)
    optims = optimisers(model, args)
    step = tokens = 0
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
        for optim, state in zip(optims, checkpoint["optims"]):
            optim.load_state_dict(state)
        step, tokens, windows.epoch = checkpoint["step"], checkpoint["tokens"], checkpoint["epoch"]
        # Another window length is another list of windows: go on at the same fraction of the epoch.
        windows.plan()
        windows.index = int(checkpoint["fraction"] * len(windows.order))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {config}", flush=True)

    def write(name):
        save(out / name, {
            "config": asdict(config), "model": model.state_dict(), "optims": [o.state_dict() for o in optims],
            "step": step, "tokens": tokens, "epoch": windows.epoch, "fraction": windows.index / len(windows.order),
            "seed": args.seed,
        })

    def evaluate():
        bpb = bits_per_byte(model, held_out, held_out_size, args.sequence, args.precision)
        print(f"step {step} tokens {tokens} held-out {bpb:.4f} bits per byte", flush=True)

    stopping = []  # SIGTERM or SIGINT: finish the step, evaluate, save
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    begun = logged = saved = evaluated = time.monotonic()
    total, count, logged_tokens = 0.0, 0, tokens
    while (done := (time.monotonic() - begun) / 60 / args.minutes) < 1 and not stopping:
        rate = min(1, (step + 1) / args.warmup) * (args.rate[0] + (args.rate[1] - args.rate[0]) * done)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = args.lr * rate
        inputs, targets = windows.batch(args.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            logits = model(inputs)  # [B, T, V]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        step, tokens = step + 1, tokens + targets.numel()
        total, count = total + loss.item(), count + 1
        now = time.monotonic()
        if count == args.log_steps:
            print(f"step {step} tokens {tokens} epoch {windows.epoch} loss {total / count:.4f} norm {norm:.2f} "
                  f"rate {args.lr * rate:.2e} tokens/s {(tokens - logged_tokens) / (now - logged):.0f}", flush=True)
            total, count, logged, logged_tokens = 0.0, 0, now, tokens
        if now - saved > args.save_minutes * 60:
            write("last.pt")
            saved = time.monotonic()
        if now - evaluated > args.eval_minutes * 60:
            evaluate()
            evaluated = time.monotonic()
    write("last.pt")
    evaluate()


if __name__ == "__main__":
    main()
