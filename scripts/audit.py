"""Asks a public service whether what is installed here has known vulnerabilities.

python scripts/audit.py            # asks PyPI, and OSV where PyPI does not say
python scripts/audit.py --osv-url http://127.0.0.1:8000/v1/query    # asks that one alone

Exit status 0: every package was looked up, and none has a vulnerability that a newer version mends.
1: one has. 2: not every package could be looked up, so that nothing is known of the others;
pip-audit alone says "No known vulnerabilities found" then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

OWN = "drsow-plugin"


class Audit(NamedTuple):
    """What a service says of some packages.

    Attributes:
        vulnerable: Those with vulnerabilities, as pip-audit reports them.
        known: How many it has looked up.
        unknown: Those that it has not, with the reason.
    """

    vulnerable: list[dict[str, Any]]
    known: int
    unknown: list[str]


def installed() -> list[str]:
    """Return what is installed but for this project, each pinned, without builds of a version."""
    pins = {
        f"{d.metadata['Name'].lower().replace('_', '-')}=={d.version.partition('+')[0]}"
        for d in metadata.distributions()
    }
    return sorted(pin for pin in pins if not pin.startswith(f"{OWN}=="))


def ask(pins: list[str], service: list[str]) -> Audit:
    """Ask one service about some packages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "installed.txt"
        file.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), "--no-deps", "--disable-pip"]
        done = subprocess.run(  # noqa: S603 (words of this script, and no shell)
            [*command, "--format", "json", "--progress-spinner", "off", *service],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Audit([], 0, [f"{pin}: {said[-1]}" for pin in pins])
    looked_up = [entry for entry in found if "vulns" in entry]
    unknown = [f"{e['name']}: {e.get('skip_reason')}" for e in found if "vulns" not in e]
    return Audit([entry for entry in looked_up if entry["vulns"]], len(looked_up), unknown)


def report(audit: Audit) -> int:
    """Print what was found; return the exit status."""
    mendable = 0
    for entry in audit.vulnerable:
        for vulnerability in entry["vulns"]:
            fixes = vulnerability["fix_versions"]
            mendable += bool(fixes)
            mended = f"mended in {', '.join(fixes)}" if fixes else "no version mends it"
            print(f"{entry['name']} {entry['version']}: {vulnerability['id']}, {mended}")
    if mendable:
        print(f"{mendable} known vulnerabilities that a newer version mends: raise the versions.")
        return 1
    if audit.unknown:
        print(
            f"NOT CHECKED: {len(audit.unknown)} of {len(audit.unknown) + audit.known} packages "
            f"could not be looked up, such as {audit.unknown[0]}"
        )
        return 2
    print(f"{audit.known} packages have no known vulnerability that a newer version mends.")
    return 0


def main() -> int:
    """Ask, and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--osv-url")
    url = parser.parse_args().osv_url
    services = [["-s", "pypi"], ["-s", "osv"]] if url is None else [["-s", "osv", "--osv-url", url]]
    pins = installed()
    for service in services:
        audit = ask(pins, service)
        if audit.vulnerable or not audit.unknown:
            break
    return report(audit)


if __name__ == "__main__":
    sys.exit(main())
