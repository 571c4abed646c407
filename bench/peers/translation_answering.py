"""Hugging Face generate, or CTranslate2, on a Marian model: sentences per second, after one pass to warm up.

Usage: translation_answering.py FOLDER hf|ct2 BEAMS BATCH float32|bfloat16|int8 WORKERS THREADS N OUT.json
FOLDER holds config.json and model.safetensors (Marian as transformers names it) and work.json (source ids, tokens, ids by name).
"""

import json
import os
import sys
import time

folder, engine, beams, batch, precision, workers, threads, n, out = sys.argv[1:]
beams, batch, workers, threads, n = int(beams), int(batch), int(workers), int(threads), int(n)
work = json.load(open(f"{folder}/work.json"))
pad, bos, eos, sources = work["pad"], work["bos"], work["eos"], work["sources"][:n]
order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
LONGEST = 80


def hugging_face():
    import torch
    from transformers import MarianMTModel

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MarianMTModel.from_pretrained(folder).eval().to(device)
    if precision == "bfloat16":
        model = model.bfloat16()

    def answer(rows):
        longest = max(len(sources[i]) for i in rows)
        ids = torch.tensor([sources[i] + [pad] * (longest - len(sources[i])) for i in rows], device=device)
        with torch.inference_mode():
            options = {"num_beams": beams, "max_new_tokens": LONGEST, "do_sample": False}
            found = model.generate(input_ids=ids, attention_mask=(ids != pad).long(), **options)
        return [[token for token in row if token not in (pad, bos, eos)] for row in found.tolist()]

    return lambda: {i: ids for k in range(0, len(order), batch) for i, ids in zip(order[k : k + batch], answer(order[k : k + batch]))}


def ctranslate2():
    import ctranslate2

    converted = f"{folder}/ct2-{precision}"
    if not os.path.isdir(converted):
        convert(converted)
    translator = ctranslate2.Translator(converted, device="cpu", compute_type=precision, inter_threads=workers, intra_threads=threads)
    tokens, ids = work["tokens"], {token: i for i, token in enumerate(work["tokens"])}
    written = [[tokens[i] for i in source] for source in sources]
    options = {"beam_size": beams, "max_decoding_length": LONGEST}

    def answer():
        if batch == 1:
            found = [translator.translate_batch([source], **options)[0] for source in written]
        else:
            found = translator.translate_batch(written, max_batch_size=batch, batch_type="examples", **options)
        return {i: [ids[token] for token in one.hypotheses[0]] for i, one in enumerate(found)}

    return answer


def convert(target):
    """Write the Marian weights as CTranslate2 stores them."""
    import ctranslate2
    import numpy as np
    from safetensors.numpy import load_file

    weights, config = load_file(f"{folder}/model.safetensors"), json.load(open(f"{folder}/config.json"))
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (config["encoder_layers"], config["decoder_layers"]), config["encoder_attention_heads"], pre_norm=False
    )
    positions, width = np.arange(512)[:, None], config["d_model"]
    angle = positions / 10000 ** (2 * (np.arange(width // 2) / width))[None]
    table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)

    def joint(place, names):
        place.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
        place.bias = np.concatenate([weights[f"{name}.bias"] for name in names])

    def norm(place, name):
        place.gamma, place.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    for side, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        embeddings = part.embeddings[0] if side == "encoder" else part.embeddings
        embeddings.weight = weights["model.shared.weight"]
        part.position_encodings.encodings = table
        part.scale_embeddings = True
        for i, layer in enumerate(part.layer):
            name = f"model.{side}.layers.{i}"
            joint(layer.self_attention.linear[0], [f"{name}.self_attn.{x}_proj" for x in "qkv"])
            joint(layer.self_attention.linear[1], [f"{name}.self_attn.out_proj"])
            norm(layer.self_attention.layer_norm, f"{name}.self_attn_layer_norm")
            if side == "decoder":
                joint(layer.attention.linear[0], [f"{name}.encoder_attn.q_proj"])
                joint(layer.attention.linear[1], [f"{name}.encoder_attn.{x}_proj" for x in "kv"])
                joint(layer.attention.linear[2], [f"{name}.encoder_attn.out_proj"])
                norm(layer.attention.layer_norm, f"{name}.encoder_attn_layer_norm")
            joint(layer.ffn.linear_0, [f"{name}.fc1"])
            joint(layer.ffn.linear_1, [f"{name}.fc2"])
            norm(layer.ffn.layer_norm, f"{name}.final_layer_norm")
    spec.decoder.projection.weight = weights["model.shared.weight"]
    spec.decoder.projection.bias = weights["final_logits_bias"][0]
    spec.register_source_vocabulary(work["tokens"])
    spec.register_target_vocabulary(work["tokens"])
    tokens = work["tokens"]
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = tokens[bos], tokens[eos], tokens[work["unk"]]
    spec.config.decoder_start_token = tokens[bos]
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization=precision)
    os.makedirs(target)
    spec.save(target)


run = hugging_face() if engine == "hf" else ctranslate2()
run()
times = []
for _ in range(2):
    begun = time.perf_counter()
    found = run()
    times.append(time.perf_counter() - begun)
json.dump([found[i] for i in range(len(sources))], open(out, "w"))
print(json.dumps({"rate": len(sources) / min(times)}))
