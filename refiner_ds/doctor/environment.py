"""`.deepspeed_env`, which the deepspeed launcher carries to all hosts: lines that stop it, secrets that it shows."""

import re
from collections.abc import Iterator, Mapping

from refiner_ds.doctor.lines import ALL, Line

CHECK = "environment"
VARIABLE = re.compile(r"[A-Za-z_]\w*=")
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY|API_KEY)", re.IGNORECASE)


def check_environment(files: Mapping[str, str]) -> Iterator[Line]:
    """What is wrong with such files, by name and text; the launcher reads them line by line and knows no comments."""
    for name, text in files.items():
        lines = text.splitlines()
        faults = [number for number, line in enumerate(lines, start=1) if not VARIABLE.match(line)]
        if faults:
            remedy = "take empty lines and comments out, or start with launch/deepspeed_multinode.sh, which does"
            text = f"{name}, line {faults[0]} is not NAME=VALUE, at which deepspeed stops"
            yield Line(CHECK, ALL, "warn", text, remedy)
        names = [line.partition("=")[0].strip() for line in lines if VARIABLE.match(line)]
        if secrets := [one for one in names if SECRET.search(one)]:
            remedy = "take it out, and keep it in a file that only you can read, such as ~/.mlflow/credentials"
            text = f"{name} holds {', '.join(secrets)}, which pdsh shows on every command line"
            yield Line(CHECK, ALL, "fail", text, remedy)
        if not faults and not secrets:
            yield Line(CHECK, ALL, "ok", f"{name} carries {', '.join(names) or 'nothing'}")
