"""What each verb can be told: one dataclass a verb, whose fields are its flags and whose docstrings are its help."""
