"""What other slides and other seeds taught about spread: how small a difference can be told apart, before any run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from reproduction.contrast import Spread
from reproduction.design import LABS, ROOT, Size
from reproduction.findings import QUESTIONS, Findings
from reproduction.tissue import LABS_HELD_OUT

KEPT: Final = ROOT / "reproduction" / "pilot.json"


def write_spread(findings: Findings, size: Size, file: Path = KEPT) -> None:
    """Keep the spread of every difference that a question asks for; what the differences are is not kept."""
    spreads = {
        question: {key: findings.difference(key, *looks).spread for key in findings.keys}
        for question, looks in QUESTIONS.items()
    }
    document = {
        "slides": findings.slides,
        "seeds": list(size.seeds),
        "corpus_seed": size.corpus_seed,
        "steps": size.steps,
        "spread": {
            question: {key: {"of_slides": one.of_slides, "of_seeds": one.of_seeds} for key, one in of_question.items()}
            for question, of_question in spreads.items()
        },
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def detectable(question: str, slides: int, seeds: int) -> dict[str, float]:
    """The smallest differences that so many held-out slides and seeds tell apart with a chance of 80 %, by measure."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["spread"][question]
    return {key: Spread(**one).detectable(LABS if key == LABS_HELD_OUT else slides, seeds) for key, one in kept.items()}
