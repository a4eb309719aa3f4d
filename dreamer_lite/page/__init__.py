"""What the cells of a chapter show: code, sentences, quizzes, labs, solutions, drawings.

Each call returns an object that carries its content in several forms (HTML, Markdown, text,
picture), so that a page reads the same in JupyterLab, on GitHub, on the website and in print.
"""

from dreamer_lite.page.box import box
from dreamer_lite.page.drawing import BOXES, agent_drawing
from dreamer_lite.page.lab import Lab
from dreamer_lite.page.output import Output, say, table
from dreamer_lite.page.quiz import Quiz
from dreamer_lite.page.solution import Solution
from dreamer_lite.page.source import equation, show
from dreamer_lite.page.versus import versus

__all__ = [
    "BOXES", "Lab", "Output", "Quiz", "Solution", "agent_drawing", "box", "equation", "say",
    "show", "table", "versus",
]  # fmt: skip
