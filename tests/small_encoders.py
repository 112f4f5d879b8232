"""A tiny BERT with random weights and a tokenizer of a few words, as transformers would save them, and texts for it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SUBJECTS = ("cat", "dog", "bird", "fish")
VERBS = ("eats", "sees", "likes", "finds", "leaves")
THINGS = ("rice", "stone", "water", "bread", "sand", "grass")
WORDS = (*SUBJECTS, *VERBS, *THINGS, "the", "a", "and", "never", "always")
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "type_vocab_size": 1,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def tokenizer_json() -> str:
    """A word-level tokenizer with BERT's special tokens."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'text'")
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str())


def build(config: dict[str, object] | None = None, *, seed: int = 0) -> torch.nn.Module:
    """The transformers model of a configuration, random weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'text'")
    settings = dict(CONFIG if config is None else config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        )
    return built.eval()


def write_encoder(folder: Path, config: dict[str, object] | None = None, *, seed: int = 0) -> Path:
    """The three files of a tiny encoder in a folder, which is given back."""
    import safetensors.torch

    settings = dict(CONFIG if config is None else config)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in build(settings, seed=seed).state_dict().items()}
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(state))
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    """A folder's files as a .zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def sentences(seed: int, count: int = 80) -> list[tuple[str, str]]:
    """Texts with a label that follows from the words: who acts, told from where the word stands."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: tuple[str, ...]) -> str:
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    found: dict[str, str] = {}
    while len(found) < count:
        subject = SUBJECTS[len(found) % 2 + 2 * (seed % 2)]
        words = ["the", subject, pick(("never", "always")), pick(VERBS), pick(("the", "a")), pick(THINGS)]
        found.setdefault(" ".join([*words, *(["and", pick(THINGS)] if len(found) % 3 else [])]), subject)
    return list(found.items())


def write_table(path: Path, seed: int, count: int = 80) -> Path:
    """Sentences as JSON lines."""
    lines = [json.dumps({"text": text, "label": label}) for text, label in sentences(seed, count)]
    path.write_text("\n".join(lines) + "\n")
    return path
