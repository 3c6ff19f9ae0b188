"""The one family of errors that a user can mend."""


class UserError(ValueError):
    """Something the user gave is unusable; the text names the thing and the way out.

    Command lines print the text alone, without a traceback; nodes log it and refuse the
    transition. Everything else that is raised is a defect of the program and keeps its traceback.
    """
