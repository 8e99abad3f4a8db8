"""The same proxy in compiled PyTorch, to compare speed and losses with.

    python benchmarks/torch_proxy.py FOLDER        # with a Python that has PyTorch; JAX is not needed

``benchmarks/accelerator.py`` writes ``settings.json`` and ``start.npz`` (weights by their Flax names, and tokens) to
FOLDER. The script first prints a line of JSON: the loss of one step on each batch of tokens, the device, and the
version. Then it reads numbers of steps, one per line, takes that many steps, and prints the seconds.
"""

import json
import pathlib
import sys
import time

import numpy as np
import torch
from torch.nn import functional

# The same values as in olmix_jax/proxy/model.py.
EPSILON, ROPE_THETA = 1e-6, 5e5


def norm(x, scale):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + EPSILON) * scale).to(x.dtype)


def rotate(x_BLHd):
    half = x_BLHd.shape[-1] // 2
    frequency_d = ROPE_THETA ** (-torch.arange(half, dtype=torch.float32, device=x_BLHd.device) / half)
    angle_Ld = torch.arange(x_BLHd.shape[1], dtype=torch.float32, device=x_BLHd.device)[:, None] * frequency_d
    cos, sin = angle_Ld.cos()[:, None], angle_Ld.sin()[:, None]
    first, second = x_BLHd.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BLHd.dtype)


def block(x_BLD, weights: dict, heads: int, dtype):
    def linear(x, name):
        return x @ weights[f"{name}/kernel"].to(dtype)

    def split_heads(x):
        return x.unflatten(-1, (heads, -1))

    q = rotate(split_heads(norm(linear(x_BLD, "q"), weights["q_norm/scale"]))).transpose(1, 2)
    k = rotate(split_heads(norm(linear(x_BLD, "k"), weights["k_norm/scale"]))).transpose(1, 2)
    v = split_heads(linear(x_BLD, "v")).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    x_BLD = x_BLD + norm(linear(mixed, "o"), weights["attention_norm/scale"])
    gate = functional.silu(linear(x_BLD, "gate")) * linear(x_BLD, "up")
    return x_BLD + norm(linear(gate, "down"), weights["feedforward_norm/scale"])


def loss_of(weights: dict, tokens_BL1, settings: dict, dtype):
    """Return the loss to minimise, and the mean cross-entropy [nats]."""
    x_BLD = functional.embedding(tokens_BL1[:, :-1], weights["embedding/embedding"]).to(dtype)
    for layer in range(settings["layers"]):
        weights_of_layer = {k.partition("/")[2]: w for k, w in weights.items() if k.startswith(f"block_{layer}/")}
        x_BLD = block(x_BLD, weights_of_layer, settings["heads"], dtype)
    logits_SV = (norm(x_BLD, weights["final_norm/scale"]) @ weights["head/kernel"].to(dtype)).flatten(0, 1).float()
    nats = functional.cross_entropy(logits_SV, tokens_BL1[:, 1:].flatten())
    return nats + settings["z_loss"] * torch.logsumexp(logits_SV, -1).square().mean(), nats


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with np.load(folder / "start.npz", allow_pickle=False) as arrays:
        weights = {k: torch.tensor(arrays[k], device=device, requires_grad=True) for k in arrays if k != "tokens"}
        tokens_TBL1 = torch.tensor(arrays["tokens"], device=device, dtype=torch.int64)
    dtype = getattr(torch, settings["dtype"])
    decayed = [w for k, w in weights.items() if k.endswith("/kernel")]
    others = [w for k, w in weights.items() if not k.endswith("/kernel")]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        betas=settings["betas"],
        weight_decay=settings["weight_decay"],
        fused=True,
    )
    compiled = torch.compile(lambda tokens: loss_of(weights, tokens, settings, dtype), fullgraph=True)

    def step(t: int):
        parts = settings["parts"]
        nats = 0.0
        for batch in tokens_TBL1[t % len(tokens_TBL1)].chunk(parts):
            loss, part = compiled(batch)
            (loss / parts).backward()
            nats = nats + part.detach() / parts
        torch.nn.utils.clip_grad_norm_(weights.values(), settings["clip"])
        for group in optimizer.param_groups:
            group["lr"] = settings["lr"][min(t, len(settings["lr"]) - 1)]
        optimizer.step()
        optimizer.zero_grad()
        return nats

    losses = [step(t).item() for t in range(len(tokens_TBL1))]
    print(json.dumps({"losses": losses, "device": device, "torch": torch.__version__}), flush=True)
    done = len(losses)
    for line in sys.stdin:
        begun = time.perf_counter()
        for t in range(done, done := done + int(line)):
            last = step(t)
        last.item()
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
