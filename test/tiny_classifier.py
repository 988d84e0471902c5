"""An encoder of two layers with a classifier, written at the packed level of the IR."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VOCABULARY, LENGTH, WIDTH, HEADS, CLASSES = 40, 12, 16, 4, 2
LAYERS = ("encoder.layer.0.attention", "encoder.layer.1.attention")


def weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """Random weights, large enough that attention has something to prune."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    found = {"table": draw(VOCABULARY, WIDTH, scale=1.0)}
    for layer in range(len(LAYERS)):
        for name in ("q", "k", "v", "o"):
            found[f"l{layer}.{name}.weight"] = draw(WIDTH, WIDTH, scale=0.5)
        found[f"l{layer}.gamma"] = np.ones(WIDTH, np.float32)
        found[f"l{layer}.beta"] = np.zeros(WIDTH, np.float32)
    found["classifier.weight"] = draw(CLASSES, WIDTH, scale=0.5)
    return found


def ir_text(batch: int, output: str = "logits") -> str:
    """The module for `batch` sequences of up to `LENGTH` tokens."""
    rows, ids = f"tensor<?x{WIDTH}xf32>", f"tensor<{batch}x{LENGTH}xi64>"
    packing = f"!attn.packing<{batch}, {LENGTH}, reads [0]>"
    square = f"tensor<{WIDTH}x{WIDTH}xf32>"
    vector = f"tensor<{WIDTH}xf32>"
    lines = [
        f'func.func @main(%ids: {ids} {{heatc.name = "input_ids"}}, '
        f'%mask: {ids} {{heatc.name = "attention_mask"}}) -> '
        f'(tensor<{batch}x{CLASSES}xf32> {{heatc.name = "{output}"}}) {{',
        f"  %p = attn.packing %mask : ({ids}) -> {packing}",
        f'  %table = einsum.weight ["table"] : tensor<{VOCABULARY}x{WIDTH}xf32>',
        f"  %tokens = attn.pack %ids, %p : ({ids}, {packing}) -> tensor<?xi64>",
        f"  %x0 = nn.embedding %table, %tokens : (tensor<{VOCABULARY}x{WIDTH}xf32>, "
        f"tensor<?xi64>) -> {rows}",
    ]
    for layer, path in enumerate(LAYERS):
        x, here = f"%x{layer}", f"%l{layer}"
        for name in ("q", "k", "v"):
            lines += [
                f'  {here}w{name} = einsum.weight ["l{layer}.{name}.weight"] : {square}',
                f'  {here}{name} = einsum.contract "ti,oi->to" {x}, {here}w{name} : '
                f"({rows}, {square}) -> {rows}",
            ]
        scale = (WIDTH // HEADS) ** -0.5
        lines += [
            f"  {here}a = attn.sdpa {here}q, {here}k, {here}v packed %p : {packing} "
            f"{{heads = {HEADS} : i64, scale = {scale} : f64}} : {rows}, {rows}, {rows} -> {rows} "
            f'loc("{path}"("tiny.py":{layer + 1}:0))',
            f'  {here}wo = einsum.weight ["l{layer}.o.weight"] : {square}',
            f'  {here}o = einsum.contract "ti,oi->to" {here}a, {here}wo : '
            f"({rows}, {square}) -> {rows}",
            f"  {here}s = nn.add {here}o, {x} : ({rows}, {rows}) -> {rows}",
            f'  {here}g = einsum.weight ["l{layer}.gamma"] : {vector}',
            f'  {here}b = einsum.weight ["l{layer}.beta"] : {vector}',
            f"  %x{layer + 1} = nn.layer_norm {here}s, {here}g, {here}b {{eps = 1.0e-05 : f64}} : "
            f"({rows}, {vector}, {vector}) -> {rows}",
        ]
    last = f"%x{len(LAYERS)}"
    lines += [
        f"  %first = attn.token {last}, %p {{position = 0 : i64}} : ({rows}, {packing}) -> "
        f"tensor<{batch}x{WIDTH}xf32>",
        f'  %wc = einsum.weight ["classifier.weight"] : tensor<{CLASSES}x{WIDTH}xf32>',
        f'  %y = einsum.contract "bi,oi->bo" %first, %wc : (tensor<{batch}x{WIDTH}xf32>, '
        f"tensor<{CLASSES}x{WIDTH}xf32>) -> tensor<{batch}x{CLASSES}xf32>",
        f"  func.return %y : tensor<{batch}x{CLASSES}xf32>",
        "}",
    ]
    return "\n".join(lines) + "\n"
