"""What the program runs in, by allowlist: an environment holds secrets, so nothing of it is recorded unasked.

Recorded by default are names that say which software this is; settings add variables (`record_variables`) and packages
(`record_packages`). Read once per process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from provd.common.settings import Settings
from provd.producer.capture import convert

#: Variables that say which software runs, by the name they get. Their values are paths, names and numbers.
_SOFTWARE = {
    "modules": "LOADEDMODULES",
    "spack_environment": "SPACK_ENV",
    "conda_environment": "CONDA_DEFAULT_ENV",
    "conda_prefix": "CONDA_PREFIX",
    "virtual_environment": "VIRTUAL_ENV",
    "container": "APPTAINER_CONTAINER",
    "container_name": "APPTAINER_NAME",
    "singularity": "SINGULARITY_CONTAINER",
    "cuda_visible_devices": "CUDA_VISIBLE_DEVICES",
    "rocr_visible_devices": "ROCR_VISIBLE_DEVICES",
    "omp_num_threads": "OMP_NUM_THREADS",
}


def read_environment(settings: Settings, scheduler: dict[str, str]) -> dict[str, Any]:
    """The facts of the record's `environment`."""
    system = os.uname()
    facts: dict[str, Any] = {
        "python": sys.version.partition(" ")[0],
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "system": f"{system.sysname} {system.release} {system.machine}",
        "processors": os.cpu_count(),
    }
    facts |= {name: os.environ[variable] for name, variable in _SOFTWARE.items() if os.environ.get(variable)}
    variables = {name: os.environ[name] for name in _listed(settings.record_variables) if name in os.environ}
    packages = _versions(_listed(settings.record_packages))
    for name, found in (("scheduler", scheduler), ("variables", convert(variables)), ("packages", packages)):
        if found:
            facts[name] = found
    return facts


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of installed packages; one that is not installed is absent."""
    versions: dict[str, str] = {}
    for package in packages:
        from importlib.metadata import PackageNotFoundError, version  # reads many files: only when asked

        try:
            versions[package] = version(package)
        except (PackageNotFoundError, ValueError):
            continue
    return versions
