"""The RO-Crate validator without a network: the one context that it needs is in its cache before it begins."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.utils.uri import URI
from urllib3 import HTTPResponse

_SCHEMAS = Path(__file__).parents[1] / "schemas"
CONTEXT = _SCHEMAS / "ro-crate-1.1-context.jsonld"
_CONTEXTS = {"https://w3id.org/ro/crate/1.1/context": CONTEXT}


class _Files(HTTPAdapter):
    """Answers from files; anything else is an error."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        body = _CONTEXTS[str(request.url)].read_bytes()
        headers = {"Content-Type": "application/ld+json", "Content-Length": str(len(body))}
        raw = HTTPResponse(io.BytesIO(body), headers, 200, preload_content=False)
        return self.build_response(request, raw)


def complaints(crate: Path, cache: Path, *, profile: str, severity: str = "REQUIRED") -> list[str]:
    """What the validator finds wrong with a crate; the profiles that a profile builds on are checked, too."""
    session = CachedSession(str(cache), backend="sqlite", expire_after=-1)
    session.mount("https://", _Files())
    for url in _CONTEXTS:
        session.get(url, headers={"Accept": "application/ld+json, application/json"}).raise_for_status()
    session.close()  # type: ignore[no-untyped-call]
    settings = ValidationSettings(
        rocrate_uri=URI(crate),
        profile_identifier=profile,
        requirement_severity=Severity[severity],
        cache_path=cache,
        offline=True,
        skip_availability_check=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # between the validator and rdflib
        result = services.validate(settings)
    assert result.executed_checks
    return [
        f"{issue.severity.name} {issue.check.identifier}: {issue.message}" for issue in result.get_issues()
    ]
