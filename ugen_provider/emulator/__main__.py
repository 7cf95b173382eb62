# SPDX-License-Identifier: Apache-2.0
"""`python -m ugen_provider.emulator`."""

from ugen_provider.emulator.cli import emulator_command

if __name__ == "__main__":
    emulator_command(prog_name="python -m ugen_provider.emulator")
