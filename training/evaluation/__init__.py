"""What is measured of a generator, by its task."""

from service.manifest import Task
from training.evaluation.base import AbstractEvaluation, EvaluationError, Report, Subject, table
from training.evaluation.generation import Generation
from training.evaluation.translation import Translation

EVALUATIONS: dict[Task, type[AbstractEvaluation]] = {
    "generate": Generation,
    "translate": Translation,
}

__all__ = ["EVALUATIONS", "AbstractEvaluation", "EvaluationError", "Report", "Subject", "table"]
