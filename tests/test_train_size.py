"""The path of `fit` can be read in one sitting, and knows nothing of what is made of a trained encoder."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import exaone_train

PACKAGE = Path(exaone_train.__file__).parent
LOOK_ON = {"config", "errors", "journal", "watch"}
"""They say what a run is and write down how it goes, and decide nothing of what is learned."""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, anywhere in it, and all that they import."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (PACKAGE / name).is_dir() or not (PACKAGE / f"{name}.py").exists():
            found |= {name} if (PACKAGE / name).is_dir() else set()
            continue
        found.add(name)
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "exaone_train":
                parts = node.module.split(".")
                waiting += parts[1:2] or [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names = (alias.name.split(".") for alias in node.names)
                waiting += [parts[1] for parts in names if parts[0] == "exaone_train" and len(parts) > 1]
    return found


def lines_of_code(source: str) -> int:
    """Lines that are not blank, and hold more than comments and docstrings."""
    tree = ast.parse(source)
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    documented = {line for node in texts for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spans = [range(one.start[0], one.end[0] + 1) for one in tokens if one.type not in NO_CODE]
    return len({line for span in spans for line in span} - documented)


def test_lines_of_code_are_counted_without_blank_lines_comments_and_docstrings() -> None:
    source = '"""One.\n\nTwo."""\n\nx = 1  # three\n# four\ndef f() -> str:\n    """Five."""\n    return """\n\n"""\n'
    assert lines_of_code(source) == 5


def test_from_shards_to_checkpoints_it_is_at_most_a_thousand_lines() -> None:
    counts = {name: lines_of_code((PACKAGE / f"{name}.py").read_text()) for name in sorted(imported("fit"))}
    assert sum(lines for name, lines in counts.items() if name not in LOOK_ON) <= 1_000, counts
    assert sum(counts.values()) <= 1_250, counts


def test_fit_imports_stream_crops_model_loss_and_checkpoints_and_nothing_of_later_steps() -> None:
    found = imported("fit")
    assert {"stream", "augment", "model", "dino", "schedules", "checkpoint", "watch", "config", "errors"} <= found
    later = {"export", "embed", "collapse", "probe", "cli", "config_file", "commands"}
    assert found.isdisjoint(later)
    assert imported("cli") >= {"commands"}, "packages are seen too"


def test_no_module_of_the_trainer_imports_the_rest_of_the_repository() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("exaone_prep", "flows", "tests")], path


def test_the_command_line_says_what_it_can_before_anything_heavy_is_imported() -> None:
    probe = (
        "import sys, exaone_train.cli, exaone_train.config_file\n"
        "print([name for name in ('torch', 'timm', 'lightly', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_fit_is_imported_without_packages_that_only_others_of_this_environment_need() -> None:
    probe = "import sys, exaone_train.fit\nprint({'torchmetrics', 'transformers'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
