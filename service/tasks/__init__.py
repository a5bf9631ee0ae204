"""What a bundle can do: one file for each task, and one dict."""

from service.errors import InvalidBundle
from service.generator import AbstractTask
from service.manifest import Manifest, Task
from service.tasks.generate import Generate
from service.tasks.translate import Translate

TASKS: dict[Task, type[AbstractTask]] = {
    "generate": Generate,
    "translate": Translate,
}


def task_of(manifest: Manifest) -> AbstractTask:
    """What a bundle does.

    Raises:
        InvalidBundle: if that is not served, or the manifest is not of that task.
    """
    if manifest.task not in TASKS:
        raise InvalidBundle(f"task {manifest.task!r} is not served; served: {', '.join(TASKS)}")
    return TASKS[manifest.task](manifest)
