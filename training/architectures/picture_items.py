"""What architectures for pictures check about the items they are built for."""

from training.config import RecipeError


def picture_channels(
    source: tuple[int, ...], target: tuple[int, ...], *, multiple_of: int, residual: bool
) -> tuple[int, int]:
    """(source channels, target channels) of picture shapes [C, H, W].

    Raises:
        RecipeError: if they are no pictures, their sizes differ, a side is no multiple of `multiple_of`, or the source
            is to be added to a target of other channels.
    """
    if len(source) != 3 or len(target) != 3:
        raise RecipeError(
            f"this architecture makes pictures [C, H, W] of pictures, not {list(target)} of {list(source)}"
        )
    if source[1:] != target[1:]:
        raise RecipeError(
            f"sources are {source[1]} x {source[2]} and targets {target[1]} x {target[2]}; give both one size"
        )
    if source[1] % multiple_of or source[2] % multiple_of:
        raise RecipeError(
            f"this generator needs heights and widths that are multiples of {multiple_of}, not {source[1]} x "
            f"{source[2]}; choose another size or fewer halvings"
        )
    if residual and source[0] != target[0]:
        raise RecipeError(
            f"generator.residual adds the source to the output, and the source has {source[0]} channel(s) and the "
            f"target {target[0]}; make it false, or the channels the same"
        )
    return source[0], target[0]
