"""Checks the contracts on imports in pyproject.toml by import-linter. The arguments are those of `lint-imports`.

import-linter reads .py files only, and the compiled module has none. It takes `from . import _kernels` for an import of the
package, whose __init__ imports everything. Therefore it reads a copy in which the stub, _kernels.pyi, is a .py file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

with tempfile.TemporaryDirectory() as folder:
    for path in [*ROOT.glob("fastkl/**/*.py"), *ROOT.glob("fastkl/**/*.pyi"), ROOT / "pyproject.toml"]:
        copy = Path(folder, path.relative_to(ROOT)).with_suffix(".py" if path.suffix == ".pyi" else path.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--no-cache", "--no-logo", *sys.argv[1:]]
    ran = subprocess.run([*command, *options], cwd=folder, env=os.environ | {"PYTHONPATH": folder}, check=False)
sys.exit(ran.returncode)
