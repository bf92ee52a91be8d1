"""Containers: the files hold what they promise, and services start as `compose.yaml` starts them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from tests.smallslides import small_slides

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
BIN = Path(sys.executable).parent
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Before a command: root, too, is then refused what a file's mode refuses."""
ONCE = {"minio-volume", "bucket", "prefect-setup", "prefect-setup-gpu"}
"""Services that end."""
EXACT_TAG = re.compile(r"[\w./-]+:(?!latest)[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?")


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Every variable of `.env.example`, filled in."""
    names = re.findall(r"^(\w+)=$", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE)
    return {name: f"/{name.lower()}" if name == "SLIDES" else f"{name.lower()}0123".replace("_", "") for name in names}


@pytest.fixture(scope="module")
def services(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The services as Docker Compose understands them."""
    file = tmp_path_factory.mktemp("compose") / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    done = compose(file)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def compose(env_file: Path) -> subprocess.CompletedProcess[str]:
    compose_client: Any = importlib.import_module("compose")
    # The program itself: the command that its package installs ends with 0 whatever happens.
    words = [
        Path(compose_client.__file__).parent / "docker-compose",
        "--file",
        DOCKER / "compose.yaml",
        "--env-file",
        env_file,
        "--profile",
        "gpu",
    ]
    clean = {"PATH": os.environ["PATH"], "HOME": str(env_file.parent)}
    return subprocess.run(
        [*map(str, words), "config", "--format", "json"], env=clean, capture_output=True, text=True, check=False
    )


def test_every_setting_that_is_missing_is_named(settings: dict[str, str], tmp_path: Path) -> None:
    for missing in settings:
        file = tmp_path / "env"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items() if name != missing))
        done = compose(file)
        assert done.returncode != 0, missing
        assert missing in done.stderr
        assert "set it in docker/.env" in done.stderr


def test_no_secret_is_written_down(services: dict[str, Any], settings: dict[str, str]) -> None:
    told = re.compile("password|secret|key", re.IGNORECASE)
    secrets = {
        (service, name): value
        for service, document in services.items()
        for name, value in document.get("environment", {}).items()
        if told.search(name) and value
    }
    assert secrets
    for place, value in secrets.items():
        assert value in settings.values(), place
    assert not re.search(r"^\s*(ENV|ARG)\b.*(PASSWORD|SECRET|TOKEN)", DOCKERFILE, flags=re.MULTILINE | re.IGNORECASE)
    assert "docker/.env" in (ROOT / ".gitignore").read_text().split()


def test_every_service_has_few_rights_and_a_health_check(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert list(service["networks"]) == ["site"], name
        if name in ONCE:
            assert service["restart"] == "no"
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
        if name != "minio-volume":
            user = service["user"].split(":")[0]
            assert user.isdigit(), name
            assert int(user) > 0, name


def test_ports_are_those_of_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) >= 5
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)


def test_services_wait_for_services_that_can_be_healthy_or_end(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, needed in service.get("depends_on", {}).items():
            ends = needed["condition"] == "service_completed_successfully"
            assert ends == (other in ONCE), (name, other)


def test_images_are_pinned_to_exact_tags(services: dict[str, Any]) -> None:
    foreign = {service["image"] for service in services.values() if "build" not in service}
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    bases = [base for base in re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE) if base not in stages]
    assert len(foreign) >= 4
    assert bases
    for image in [*foreign, *bases]:
        assert EXACT_TAG.fullmatch(image), image


def test_every_image_is_made_from_a_lock_that_is_part_of_the_full_one(services: dict[str, Any]) -> None:
    full = pins(ROOT / "locks" / "full.txt")
    locks = {service["build"]["args"]["LOCK"] for service in services.values() if "build" in service} | {"train"}
    assert locks == {"prepare", "prepare-gpu", "train"}
    for lock in locks:
        some = pins(ROOT / "locks" / f"{lock}.txt")
        assert {name: full.get(name) for name in some} == some
        assert ("torch" in some, "cupy-cuda13x" in some) == (lock == "train", lock == "prepare-gpu")


def pins(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of each package."""
    found = re.findall(r"^(\S+)==(\S+)[^\n]*\\\n((?:    --hash=\S+(?: \\)?\n)+)", lock.read_text(), flags=re.MULTILINE)
    assert found
    return {name: (version, frozenset(re.findall(r"sha256:\w+", hashes))) for name, version, hashes in found}


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run([BIN / "hadolint", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && apt-get install curl\n")
    done = subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DL3006" in done.stdout


def test_the_last_stage_is_not_root_and_has_a_health_check() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^USER (.*)$", last, flags=re.MULTILINE) == ["10001:10001"]
    assert last.index("HEALTHCHECK") > last.index("USER")


def test_the_context_of_the_build_is_what_the_dockerfile_copies() -> None:
    copied = {name for names, _ in copies() for name in names}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert {re.sub(r"/\*.*", "", line) for line in allowed} == copied
    for name in copied:
        assert (ROOT / name).exists(), name


def copies() -> list[tuple[list[str], str]]:
    """What the Dockerfile copies from the repository, and where to."""
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return [(names.split(), target) for names, target in lines]


def test_deployments_find_their_flows_where_the_image_has_them(services: dict[str, Any]) -> None:
    laid = {target: ROOT / names[0] for names, target in copies() if target.startswith("/app/")}
    assert all(target == f"/app/{source.relative_to(ROOT)}" for target, source in laid.items())
    assert {"/app/prefect.yaml", "/app/flows"} <= set(laid)
    pools = {word for name, service in services.items() if "worker" in name for word in service["command"]}
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["entrypoint"].split("/")[0] == "flows"
        assert deployment["work_pool"]["name"] in pools
    for name in ("prefect-setup", "prefect-setup-gpu"):
        assert services[name]["command"][1] in laid


def test_prometheus_asks_services_that_are_there(services: dict[str, Any]) -> None:
    document = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    hosts = [target.split(":")[0] for job in document["scrape_configs"] for target in _targets(job)]
    assert len(hosts) >= 4
    assert set(hosts) <= set(services)


def _targets(job: Mapping[str, Any]) -> Iterator[str]:
    for some in job.get("static_configs", ()):
        yield from some["targets"]
    for some in job.get("dns_sd_configs", ()):
        yield from (f"{name}:{some['port']}" for name in some["names"])


def test_dask_starts_answers_its_health_check_and_counts(services: dict[str, Any], tmp_path: Path) -> None:
    scheduler, board, worker_board = free_ports(3)
    ports = {"8786": scheduler, "8787": board, "8790": worker_board}
    with (
        started(services["dask-scheduler"], ports, tmp_path),
        healthy(services["dask-scheduler"], ports),
        started(services["dask-worker"], ports, tmp_path),
        healthy(services["dask-worker"], ports),
    ):
        assert "dask_scheduler_workers" in read(f"http://127.0.0.1:{board}/metrics")
        assert "dask_worker_tasks" in read(f"http://127.0.0.1:{worker_board}/metrics")


def test_the_dashboard_starts_before_its_data_set_is_there_and_answers_its_health_check(
    services: dict[str, Any], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    service = dict(services["dashboard"])
    service["command"] = [str(tmp_path / "later") if "://" in word else word for word in service["command"]]
    assert service["command"] != services["dashboard"]["command"]
    with started(service, {"8050": port}, tmp_path), healthy(service, {"8050": port}):
        assert "exaone_prep_dashboard_reads_total" in read(f"http://127.0.0.1:{port}/metrics")


def test_what_prometheus_and_grafana_are_given_is_there_and_is_found(services: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        for volume in services[name]["volumes"]:
            if volume["type"] == "bind":
                assert Path(volume["source"]).is_file(), volume
    rules = {volume["target"] for volume in services["prometheus"]["volumes"]}
    assert set(yaml.safe_load((DOCKER / "prometheus.yaml").read_text())["rule_files"]) <= rules
    (provider,) = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"]
    targets = [volume["target"] for volume in services["grafana"]["volumes"]]
    assert any(target.startswith(provider["options"]["path"] + "/") for target in targets)
    (source,) = yaml.safe_load((DOCKER / "grafana" / "prometheus.yaml").read_text())["datasources"]
    board = json.loads((DOCKER / "grafana" / "exaone-prep.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}


def test_the_prefect_server_and_a_worker_start_answer_and_count(services: dict[str, Any], tmp_path: Path) -> None:
    server, health = free_ports(2)
    ports = {"4200": server, "8080": health}
    with started(services["prefect-server"], ports, tmp_path), healthy(services["prefect-server"], ports):
        assert "# HELP" in read(f"http://127.0.0.1:{server}/api/metrics")
        with started(services["prefect-worker"], ports, tmp_path), healthy(services["prefect-worker"], ports):
            pass


@contextmanager
def started(service: Mapping[str, Any], ports: Mapping[str, int], folder: Path) -> Iterator[None]:
    """Run a service's command here, under its environment, on other ports; the database is a file."""
    command = [local(word, ports, folder) for word in service["command"]]
    environment = {name: local(value, ports, folder) for name, value in service["environment"].items() if value}
    environment |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_WORKER_WEBSERVER_PORT": str(ports.get("8080", 0))}
    if "PREFECT_SERVER_DATABASE_CONNECTION_URL" in environment:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{folder}/prefect.db"
    with (folder / f"{command[0]}-{command[1]}.log").open("w+") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env={**os.environ, **environment},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
            assert process.poll() is None, Path(log.name).read_text()
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def local(word: str, ports: Mapping[str, int], folder: Path) -> str:
    """A word of `compose.yaml` for this machine."""
    word = re.sub(r"\b(dask-scheduler|prefect-server)\b(?=:)", "127.0.0.1", word)
    word = re.sub(r"/(scratch|tmp)/", f"{folder}/", word)
    return re.sub(r"\d{4}", lambda found: str(ports.get(found[0], found[0])), word)


@contextmanager
def healthy(service: Mapping[str, Any], ports: Mapping[str, int], within_s: float = 120) -> Iterator[None]:
    """Wait until the service's own health check is content."""
    kind, command, *words = service["healthcheck"]["test"]
    assert (kind, command) == ("CMD", "healthy")
    check = [sys.executable, str(DOCKER / "healthy.py"), *(local(word, ports, ROOT) for word in words)]
    end = time.monotonic() + within_s
    while (done := subprocess.run(check, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < end, done.stderr
        time.sleep(0.5)
    yield


def free_ports(count: int) -> Sequence[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def read(url: str) -> str:
    """What a page says."""
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_a_service_that_does_not_answer_or_refuses_is_not_healthy() -> None:
    (port,) = free_ports(1)
    check = [sys.executable, str(DOCKER / "healthy.py"), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_install_steps_of_the_image_make_a_program_that_runs_where_it_may_write_nothing_but_its_cache() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix, cache = folder / "exaone", folder / "cache"
        for steps in (("packages", "locks/prepare.txt", str(prefix)), ("project", str(prefix))):
            subprocess.run(["sh", "docker/install.sh", *steps], cwd=ROOT, check=True)
        assert not (prefix / "bin" / "pip").exists()
        assert all(shutil.which(program, path=str(prefix / "bin")) for program in ("dask", "prefect"))
        small_slides(folder / "slides", 2)
        cache.mkdir()
        words = ["build", "--slides", f"{folder}/slides/*.tiff", "--out", str(folder / "out")]
        with read_only(prefix):
            done = subprocess.run(
                [*WITHOUT_RIGHTS, str(prefix / "bin" / "exaone-prep"), *words],
                env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "NUMBA_CACHE_DIR": str(cache)},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert (folder / "out" / "build.json").exists()
        assert list(cache.rglob("*.nbi")), "nothing was kept of what was compiled"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within it nobody without special rights writes below the folder."""
    subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    try:
        probe = subprocess.run([*WITHOUT_RIGHTS, "touch", folder / "probe"], capture_output=True, check=False)
        assert probe.returncode != 0
        yield
    finally:
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
