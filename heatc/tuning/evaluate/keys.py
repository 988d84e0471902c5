"""The keys of eval.json that are no figures: unit or type, and meaning."""

from __future__ import annotations

from heatc.tuning.evaluate.figures import SOURCES

TOP = {
    "producer": ("text", "the version of heatc that wrote the file, and its kind: evaluation"),
    "schema": ("count", "the version of this form"),
    "samples": ("count", "samples of the data"),
    "labelled": ("boolean", "whether the data has labels"),
    "output": ("text", "name of the output that was compared"),
    "classes": ("count", "classes of that output; null for a model that is no classifier"),
    "metric": ("text", "the score that the printed table shows: accuracy, mcc or f1"),
    "reference": ("text", "name of the subject that the others are compared with"),
    "intervals": ("object", "`level_percent`, and `resamples` and `seed` of the bootstrap"),
    "subjects": ("list", "one object a subject, in the order of the table"),
    "provenance": ("object", "where the figures come from"),
}
"""The keys of the file."""

SUBJECT = {
    "name": ("text", "the path as it was given; of what was compiled for a machine with its name"),
    "kind": ("text", "hdp program, numpy program, model or plan"),
    "runs": ("text", "what ran: HDP simulator, NumPy program or PyTorch"),
    "sha256": ("text", "digest of the program that ran, of its code and its weights"),
    "plan_sha256": ("text", "digest of plan.json; null for what is no plan"),
    "batch_samples": ("count", "samples of a batch, the batch of the program"),
    "length_tokens": (
        "count",
        "tokens of a sequence, those of the program; null without sequences",
    ),
    "batches": ("count", "batches that ran; repeats fill the last one and are not compared"),
    "hardware": ("text", "name of the machine of an HDP program, else null"),
    "clock_hertz": ("Hz", "its clock, else null"),
    **{source: ("object", f"figures by name; each {text}") for source, text in SOURCES.items()},
}
"""The keys of a subject."""

PROVENANCE = {
    "command": ("text", "the command line"),
    "commit": ("text", "of heatc's sources, `-dirty` where they were changed; null if not known"),
    "versions": ("object", "of Python and of the packages that computed"),
    "cpu": ("text", "the processor"),
    "cores": ("count", "cores that this process may use"),
    "jobs": ("count", "simulations that ran at once, each on one thread"),
    "date": ("text", "day of the run, UTC"),
    "seed": ("count", "of the bootstrap"),
    "data": ("object", "`file` as it was given, and its `sha256`"),
}
"""The keys of the provenance."""
