"""Which files of a folder are the model: those of transformers, and those of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

from heatc.kinds import is_heatc_safetensors

CONFIG = "config.json"
MODULES = "modules.json"
"""The modules that a sentence passes; a folder that has it is one of sentence-transformers."""

ENCODER_SETTINGS = "sentence_*_config.json"

SIDE_FILES = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
    "feature_extractor_config.json",
)
"""What says how a model of transformers is built, and how text, pictures or sound become its inputs."""

_INDEX = ".index.json"


def model_files(folder: Path) -> list[Path]:
    """
    The files that a model folder is read from, whether they are there or not, by name.

    What heatc wrote there, weights of programs and factors, is no part of the model. Raises
    `OSError` where the folder cannot be listed.
    """
    found = [folder / CONFIG, *_weights(folder)]
    if (folder / MODULES).is_file():
        found += [folder / MODULES, *folder.glob(ENCODER_SETTINGS)]
        for part in folder.iterdir():
            if part.is_dir() and part.name[:1].isdigit():
                parts = [part / CONFIG, *part.glob(ENCODER_SETTINGS), *_weights(part)]
                found += [path for path in parts if path.is_file()]
        if not (folder / CONFIG).is_file():
            found.remove(folder / CONFIG)
    return sorted(found)


def side_files(model: Path) -> list[Path]:
    """
    The files of a model folder, or beside a state dict, that are no weights: `SIDE_FILES`.

    Those of the encoder where a folder of sentence-transformers has them in a folder of their own.
    """
    folders = [model, *sorted(model.glob("0*"))] if model.is_dir() else [model.parent]
    if not any((folder / CONFIG).is_file() for folder in folders):
        return []
    found: dict[str, Path] = {}
    for file in (folder / name for folder in folders for name in SIDE_FILES):
        if file.is_file():
            found.setdefault(file.name, file)
    return list(found.values())


def is_index(path: Path) -> bool:
    """Whether a file says which shard has which weight, and nothing else."""
    return path.name.endswith(_INDEX)


def _weights(folder: Path) -> list[Path]:
    paths = folder.iterdir()
    return [path for path in paths if _is_weights(path) and not is_heatc_safetensors(path)]


def _is_weights(path: Path) -> bool:
    name = path.name.removesuffix(_INDEX)
    return name.endswith(".safetensors") or (
        name.startswith("pytorch_model") and name.endswith(".bin")
    )
