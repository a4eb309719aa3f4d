"""The autograder of the exercises: offline, on random cases, with a name for classic mistakes.

>>> from dreamer_lite.check import check
>>> check("9.2", my_lambda_return)

Each chapter's exercises stand in a module of its own, `c09.py`; the machinery is in `core.py`.
"""

from dreamer_lite.check.core import CheckFailed, Exercise, Verdict, check, exercises, judge

__all__ = ["CheckFailed", "Exercise", "Verdict", "check", "exercises", "judge"]
