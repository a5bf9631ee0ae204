"""Print the licences of bundles and of the data they learned from: `python deploy/licences.py models`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def lines(models: Path) -> Iterator[str]:
    """One line for each bundle, and one for each data set below it, as their manifests say."""
    for manifest in sorted(models.glob("*/manifest.json")):
        bundle = json.loads(manifest.read_text())
        yield f"{bundle['name']} {bundle['version']}: {bundle['licence']}"
        for data in bundle["data"]:
            yield f"  learned from {data['name']}: {data['licence']}"


if __name__ == "__main__":
    print("The service is licensed under Apache-2.0 (LICENSE). The bundles, as their manifests say:", "", sep="\n")
    print(*lines(Path(sys.argv[1])), sep="\n")
