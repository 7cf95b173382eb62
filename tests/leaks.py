# SPDX-License-Identifier: Apache-2.0
"""What a reporter of errors would show of a secret: it unfolds containers, and shows the rest by `repr`."""

import traceback


def holds(value, secret, depth=4):
    """Return whether a value shows the secret."""
    if secret in repr(value):
        return True
    if depth and isinstance(value, dict):
        return any(holds(part, secret, depth - 1) for pair in value.items() for part in pair)
    unfolded = bool(depth) and isinstance(value, list | tuple | set)
    return unfolded and any(holds(part, secret, depth - 1) for part in value)


def leaks(error, secret, *, own):
    """Where an error, or one behind it, shows the secret: in its text, or in a frame of another file than `own`."""
    found, left = [], [error]
    while left:
        link = left.pop()
        if link is None:
            continue
        left += [link.__cause__, link.__context__]
        for frame, line in traceback.walk_tb(link.__traceback__):
            if frame.f_code.co_filename != own:
                place = f"{frame.f_code.co_qualname}:{line}"
                found += [f"{place} {name}" for name, value in frame.f_locals.items() if holds(value, secret)]
        if secret in f"{link} {link!r} {vars(link)}":
            found.append(f"text of {type(link).__name__}")
    return found
