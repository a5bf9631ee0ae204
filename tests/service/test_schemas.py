from typing import get_args

import pytest

from service.animations import ANIMATIONS, AnimationName
from service.archives import ARCHIVES, CONTAINERS, ArchiveName, ContainerName
from service.formats import FORMATS, FormatName
from service.uploads import READERS, UploadFormat


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (FormatName, FORMATS),
        (ArchiveName, ARCHIVES),
        (AnimationName, ANIMATIONS),
        (ContainerName, CONTAINERS),
        (UploadFormat, READERS),
    ],
)
def test_what_may_be_named_is_what_there_is(names, table):
    """A name that a request may hold, and no table, would be a failure of ours."""
    assert set(get_args(names)) == set(table)
