"""The one exception for a mistake that a person can mend; the command line shows its sentence without a traceback."""


class UserError(ValueError):
    """One sentence for a person: which setting, its value, what follows from it, and the remedy."""
