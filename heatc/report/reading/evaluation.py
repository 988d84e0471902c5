"""eval.json of `heatc-tune eval`: accuracy, agreement and costs of programs side by side."""

from __future__ import annotations

from pathlib import Path

from heatc.readers.json_text import read_json
from heatc.report.material import EvaluationRun
from heatc.report.reading.source import LARGEST_JSON, Part, expect_schema, source_file
from heatc.tuning.evaluate.figures import SCHEMA, SOURCES


def read_evaluation(path: Path, name: str) -> EvaluationRun:
    """The evaluation; raises `HeatcError` where it is not as heatc-tune eval writes it."""
    data = Part(read_json(path, "eval.json", LARGEST_JSON), str(path))
    expect_schema(data, SCHEMA)
    data.get("samples").integer()
    data.get("reference").text()
    data.get("metric").text()
    for subject in data.get("subjects").list():
        _check(subject)
    data.get("provenance").object()
    return EvaluationRun(name, data.object(), [source_file(path)])


def _check(subject: Part) -> None:
    for key in ("name", "kind", "runs", "sha256"):
        subject.get(key).text()
    for source in SOURCES:
        for figure in subject.get(source).parts().values():
            if source == "compared" and figure.value is not None:
                for end in ("value", "low", "high"):
                    figure.get(end).number()
            elif source != "compared":
                figure.number()
