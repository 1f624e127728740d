"""`finetrial fetch STUDY`: bring what the study reads from the hub, and nothing else; a later run needs no network."""

from __future__ import annotations

from finetrial.cli.output import facts, note, say
from finetrial.cli.study import Changes, find_study
from finetrial.plan.fetch import fetch_study


def fetch_command(name: str, changes: Changes) -> None:
    """Fetch, and print where everything comes from. Raises UserError for what the hub cannot give."""
    found = find_study(name, changes)
    origins = fetch_study(found.study, found.relative_to, say=note)
    say(facts(origins) if origins else "nothing to fetch: bases and data of this study are on this machine, or are made "
        "from the packages of the embedded corpus")
