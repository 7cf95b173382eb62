# SPDX-License-Identifier: Apache-2.0
"""What is said where the emulator's packages are missing: its command and its fixtures are there without them."""


def needs_extra(error: ModuleNotFoundError) -> str:
    """One sentence: what is missing, and what brings it.

    Examples:
        >>> needs_extra(ModuleNotFoundError(name="uvicorn"))
        "the local U-Gen needs the package uvicorn: pip install 'ugen-provider[emulator]'"
    """
    return f"the local U-Gen needs the package {error.name}: pip install 'ugen-provider[emulator]'"
