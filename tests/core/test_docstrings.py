# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring of the core runs, awaited ones too, against the emulator."""

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import sys

import pytest

import ugen_provider.core.api
import ugen_provider.core.jobs
import ugen_provider.core.ledger
from tests.core.local import Local
from ugen_provider import AsyncUGenClient, CreateJob, UGenClient
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.ledger import Ledger

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def examples():
    parser = doctest.DocTestParser()
    for package in (ugen_provider.core.api, ugen_provider.core.jobs, ugen_provider.core.ledger):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            for name, thing in _documented(module):
                found = parser.get_examples(inspect.getdoc(thing) or "")
                if found:
                    yield pytest.param(module, found, id=f"{info.name}:{name}")


def _documented(module):
    yield "module", module
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        yield name, thing
        if inspect.isclass(thing):
            for inner, method in vars(thing).items():
                if not inner.startswith("__") and callable(method):
                    yield f"{name}.{inner}", method


def namespace(module, local, tmp_path, is_async):
    client = local.async_client() if is_async else local.client()
    with local.client() as made:
        job = made.jobs.create(
            CreateJob(product_name="L", product_image_url="https://s.example/l.jpg", segment_count=1)
        )
        template = made.templates.create(name="Tall", config={})
        track = made.music.upload(b"ID3" + bytes(100), title="Jingle", filename="jingle.mp3")
    lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
    given = {"client": client, "job": job, "template": template, "track": track, "picture": PNG, "tmp_path": tmp_path}
    given["ledger"] = Ledger.init("shop.db", allow_ephemeral=True)
    given["ledger"].catalogue("shop")
    given |= {"lamp": lamp, "async_client": local.async_client(), "CreateJob": CreateJob}
    given |= {"AsyncUGenClient": AsyncUGenClient, "UGenClient": UGenClient}
    return {**vars(module), **given}


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(("module", "found"), list(examples()))
def test_an_example_runs_and_prints_what_it_says(module, found, tmp_path, monkeypatch, stack):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("UGEN_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    source = "".join(example.source for example in found)
    is_async = "await " in source or "async for" in source or "JobWatcher" in source
    local = Local(Settings(speed=0, admin=True))
    given = namespace(module, local, tmp_path, is_async)
    if "jobs.retry" in source or "jobs.resume" in source:
        with local.client() as client:
            if "retry" in source:
                local.world.advance(1000)
            else:
                local.world.advance(10)
                client.jobs.pause(given["job"].job_id)
                local.world.advance(600)
    elif "jobs.pause" in source:
        local.world.advance(10)
    elif "jobs.download" in source:  # the files of a job come from a server
        server = stack.enter_context(EmulatorServer(Settings(speed=600)))
        kind = AsyncUGenClient if is_async else UGenClient
        given["client"] = kind(api_key=LOCAL_KEY, base_url=server.base_url)
        with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
            given["job"] = client.jobs.create(given["lamp"])
    checker = doctest.OutputChecker()

    async def run():
        for example in found:
            code = compile(example.source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                sys.displayhook = sys.__displayhook__
                result = eval(code, given)
                if inspect.iscoroutine(result):
                    await result
            assert checker.check_output(example.want, out.getvalue(), doctest.ELLIPSIS), (
                f"{example.source}gave {out.getvalue()!r}, its docstring says {example.want!r}"
            )

    asyncio.run(asyncio.wait_for(run(), timeout=60))


def test_public_names_have_docstrings_and_endpoints_examples():
    bare = []
    for client in (UGenClient(api_key="k"), AsyncUGenClient(api_key="k")):
        for group in ("jobs", "credits", "webhook", "uploads", "templates", "music", "models"):
            for name in dir(getattr(client, group)):
                if name.startswith("_"):
                    continue
                text = inspect.getdoc(getattr(getattr(client, group), name)) or ""
                if "Examples:" not in text or "`" not in text.split("\n")[0]:
                    bare.append(f"{group}.{name}")
    assert bare == []
    for name in ugen_provider.__all__:
        assert inspect.getdoc(getattr(ugen_provider, name)), name
