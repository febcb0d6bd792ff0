"""A wheel holds the workflow too, which in the checkout lies beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WORKFLOW = ("Snakefile", "workflow", "config", "profiles", "environment.yml")


class BuildWithWorkflow(build_py):
    """Copies the workflow to unic/project, but for an editable install: that finds the checkout."""

    def run(self) -> None:  # noqa: D102
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "unic", "project")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in WORKFLOW:
            source = Path(name)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target / name, ignore=ignored)
            else:
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithWorkflow})
