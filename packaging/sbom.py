"""Print an SPDX 2.3 bill of materials: `sbom.py VERSION COMMIT FILE...`.

What is in a release is this source alone: nothing of others is bundled. Each file of the release
is named with its SHA-256, and what it needs at run time, which the system provides.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_LICENSE = "Apache-2.0"


def _package(identifier: str, name: str, version: str, **more: object) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{identifier}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": _LICENSE,
        "licenseDeclared": _LICENSE,
        "copyrightText": "NOASSERTION",
        **more,
    }


def document(version: str, commit: str, files: list[Path], seconds: int) -> dict[str, Any]:
    """Return the document: one package for each file, and Python, on which they depend."""
    python_license = {"licenseConcluded": "PSF-2.0", "licenseDeclared": "PSF-2.0"}
    packages = [_package("python3", "python3", "3.9 or later", **python_license)]
    relations = []
    for number, file in enumerate(sorted(files)):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        checksums = [{"algorithm": "SHA256", "checksumValue": digest}]
        packages.append(
            _package(
                f"file-{number}",
                file.name.partition("_")[0] if file.suffix == ".deb" else file.stem,
                version,
                packageFileName=file.name,
                checksums=checksums,
                sourceInfo=f"commit {commit}",
            )
        )
        for kind, other in (("DESCRIBES", None), ("DEPENDS_ON", "SPDXRef-python3")):
            this = f"SPDXRef-file-{number}"
            pair = (this, other) if other else ("SPDXRef-DOCUMENT", this)
            relations.append(
                {
                    "spdxElementId": pair[0],
                    "relationshipType": kind,
                    "relatedSpdxElement": pair[1],
                }
            )
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"mtce-guest-{version}",
        "documentNamespace": f"https://www.starlingx.io/spdx/mtce-guest-{version}-{commit}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
            "creators": ["Tool: packaging/sbom.py"],
        },
        "packages": packages,
        "relationships": relations,
    }


def main() -> None:
    """Print it."""
    version, commit, *names = sys.argv[1:]
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    text = json.dumps(document(version, commit, [Path(name) for name in names], seconds), indent=2)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
