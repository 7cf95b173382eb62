# SPDX-License-Identifier: Apache-2.0
"""No shipped module runs text as code, loads objects from bytes, or hands a line to a shell."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path for name in ("ugen_provider", "dagster_ugen") for path in (ROOT / name).rglob("*.py"))
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all",
         "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp", "subprocess.getoutput",
         "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "ssl._create_unverified_context"}  # fmt: skip
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "jsonpickle",
    "joblib",
    "xmlrpc",
    "telnetlib",
}
FLAGS = {"shell": True, "verify": False, "check_hostname": False}


def dotted(node):
    """The dotted name of an expression, such as `yaml.load`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def found_in(tree):
    """Return what a module does that none may do."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            modules = [node.module or ""]
        else:
            continue
        yield from (f"imports {name}" for name in modules if name.partition(".")[0] in MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = dotted(node.func).partition(".")
            name = names.get(head, head) + (f".{rest}" if rest else "")
            if name in CALLS:
                yield f"calls {name} on line {node.lineno}"
            for word in node.keywords:
                if word.arg in FLAGS and isinstance(word.value, ast.Constant) and word.value.value is FLAGS[word.arg]:
                    yield f"passes {word.arg}={word.value.value} on line {node.lineno}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_no_dangerous_call(path):
    assert list(found_in(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    ["eval('1')", "import pickle", "from pickle import loads", "import yaml\nyaml.load(x)",
     "import yaml as y\ny.load(x)", "from yaml import load as read\nread(x)",
     "import subprocess\nsubprocess.run(x, shell=True)", "import os\nos.system(x)",
     "def f():\n    from os import popen\n    popen(x)", "client.get(x, verify=False)"],
)  # fmt: skip
def test_search_finds_each_dangerous_call(code):
    assert list(found_in(ast.parse(code)))
