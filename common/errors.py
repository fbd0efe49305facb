"""Mistakes that are the user's, and that one line explains."""


class UsageError(ValueError):
    """Its text is one line that names the value and the way out: a program prints that line and ends with status 2.

    Every other exception is a defect, of ours or of an algorithm's author, and keeps its traceback.
    """
