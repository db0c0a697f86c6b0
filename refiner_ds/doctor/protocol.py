"""What the agents and who asks them have in common."""

MARK = "refiner-ds-doctor: "
"""Before every answer: what a shell's own files print at a login is no answer."""
