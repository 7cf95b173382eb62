# SPDX-License-Identifier: Apache-2.0
"""Services at which a purchase would not end: the doctor says so, and `--save` writes what it found."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from tests.readings.services import Running, Service
from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli import main
from ugen_provider.cli.session import Surroundings

LAMP = CreateJob(product_name="Lamp", product_image_url="https://images.example/lamp.jpg", segment_count=1)


class OwnWord(Service):
    """Ends in a word that nobody knows, and shows the video."""

    words = ("queued", "processing", "baked", "cancelled")

    def job(self, job):
        done = job.phase == 2
        return {"job_id": job.id, "status": self.word(job), "final_video_url": self.link(job) if done else None}


class OwnField(Service):
    """Shows the video under a name that nobody knows."""

    def job(self, job):
        done = job.phase == 2
        return {"job_id": job.id, "status": self.word(job), "clip": self.link(job) if done else None}


class NoVideo(Service):
    """Never shows a video."""

    def job(self, job):
        return {"job_id": job.id, "status": self.word(job)}


class NoList(Service):
    """Answers the list with an object."""

    def job(self, job):
        return {"job_id": job.id, "status": self.word(job), "final_video_url": self.link(job)}

    def page(self, rows, query):
        return {"count": len(rows)}


class NoBalance(Service):
    """Answers the balance with words."""

    def job(self, job):
        return {"job_id": job.id, "status": self.word(job), "final_video_url": self.link(job)}

    def balance(self):
        return {"plan": "gold"}


BROKEN = {
    "own word": (OwnWord, "status_map"),
    "own field": (OwnField, "video_names"),
    "no video": (NoVideo, None),
    "no list": (NoList, None),
    "no balance": (NoBalance, None),
}


@pytest.fixture
def doctor(tmp_path):
    def run(running, *words, config=None):
        folder = tmp_path / ".config" / "ugen"
        folder.mkdir(parents=True, exist_ok=True)
        if config is not None:
            (folder / "config.toml").write_text(config)
            (folder / "config.toml").chmod(0o600)
        environ = {"HOME": str(tmp_path), "UGEN_API_KEY": "ugen_sk_reading", "UGEN_BASE_URL": running.base_url}
        said = CliRunner().invoke(main, ["doctor", "--json", *words], obj=Surroundings(environ=environ))
        return said, {line["name"]: line for line in json.loads(said.stdout)}, folder / "config.toml"

    return run


@pytest.fixture
def running(request):
    running = Running(request.param())
    with UGenClient(api_key="ugen_sk_reading", base_url=running.base_url) as client:
        job = client.jobs.create(LAMP)
        for _ in range(4):
            client.jobs.get(job.job_id)
    yield running
    running.close()


@pytest.mark.parametrize(
    ("running", "row"), [pytest.param(kind, row, id=name) for name, (kind, row) in BROKEN.items()], indirect=["running"]
)
def test_the_doctor_fails_where_no_purchase_would_end(running, doctor, row):
    said, lines, _ = doctor(running)
    assert said.exit_code != 0
    wrong = [line for line in lines.values() if line["verdict"] == "wrong"]
    assert wrong
    assert all(line["advice"] for line in wrong)
    assert row is None or row in lines["service profile"]["seen"]
    assert row is None or "contradicted" in lines[f"profile.{row}"]["seen"]
    assert len(running.service.jobs) == 1


@pytest.mark.parametrize("running", [OwnWord, OwnField], indirect=True)
def test_what_the_doctor_saves_makes_a_purchase_end(running, doctor, tmp_path):
    config = f'default = "shop"\n[profiles.shop]\napi_key = "ugen_sk_reading"\nbase_url = "{running.base_url}"\n'
    said, _, path = doctor(running, "--save", config=config)
    assert said.exit_code != 0
    rows = tomllib.loads(path.read_text())["profiles"]["shop"]["service_profile"]
    assert rows
    said, lines, _ = doctor(running)
    assert said.exit_code == 0, said.output
    assert lines["a purchase"]["verdict"] == "ok"
    with UGenClient(api_key="ugen_sk_reading", base_url=running.base_url, service_profile=rows) as client:
        job = client.jobs.create(LAMP)
        assert client.jobs.wait(job.job_id, interval=0.01).final_video_url
