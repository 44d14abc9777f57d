"""How to install what is missing, from wherever rltrain itself came."""

import json
import shlex
from pathlib import Path


def command_for(extra: str) -> str:
    """Return the command that brings an extra such as "gymnax": rltrain is in no registry, so a bare name would not be found."""
    requirement = shlex.quote(_requirement(extra))
    return f"pip install {'-e ' if requirement.strip(chr(39)).startswith(('/', '.')) else ''}{requirement}"


def _requirement(extra: str) -> str:
    """Return rltrain with an extra as pip takes it: PEP 610 has an installation remember the address that it came from."""
    from importlib import metadata

    try:
        origin = json.loads(metadata.distribution("rltrain").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        origin = {}
    url = origin.get("url", "")
    if "vcs_info" in origin:
        revision = origin["vcs_info"].get("requested_revision")
        return f"rltrain[{extra}] @ {origin['vcs_info']['vcs']}+{url}{f'@{revision}' if revision else ''}"
    checkout = Path(url.removeprefix("file://")) if "dir_info" in origin else Path(__file__).parents[1]
    if (checkout / "pyproject.toml").exists():
        return f"{checkout}[{extra}]"
    return f"rltrain[{extra}] @ {url}" if url else f"rltrain[{extra}]"
