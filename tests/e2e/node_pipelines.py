"""Pipelines that the tests run on the end-to-end node."""

# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PTH123, S310

from typing import Any

from kfp import dsl, kubernetes

#: Made by tests/e2e/servers/images: this machine's CPython with kfp.
IMAGE = "dev.local/python:1"


@dsl.container_component
def prepare(rows: int, data: dsl.Output[dsl.Dataset]):  # type: ignore[no-untyped-def]
    program = (
        "import os, sys; os.makedirs(os.path.dirname(sys.argv[2]), exist_ok=True); "
        "open(sys.argv[2], 'w').write('\\n'.join(map(str, range(int(sys.argv[1])))))"
    )
    return dsl.ContainerSpec(
        image="dev.local/python:1", command=["python3", "-c", program], args=[rows, data.path]
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]
) -> float:
    with open(data.path) as file:
        rows = len(file.read().split())
    with open(model.path, "w") as file:
        file.write(f"model of {rows} rows")
    metrics.log_metric("accuracy", 0.75)
    metrics.log_metric("rows", rows)
    return 0.75


@dsl.pipeline(name="two-steps")
def two_steps(rows: int = 5) -> None:
    data = prepare(rows=rows).set_memory_limit("128Mi")
    train(data=data.output)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fail(word: str) -> None:
    raise ValueError(f"cannot work with {word}")


@dsl.pipeline(name="failing")
def failing(word: str) -> None:
    fail(word=word)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(x: int) -> int:
    return 2 * x


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def total(xs: list) -> int:  # type: ignore[type-arg]
    return sum(xs)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def second_time(x: int, counter: str) -> int:
    """Fails until its counter in S3 is there."""
    import urllib.error
    import urllib.request

    key = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, Signature=0"
    headers = {"Authorization": key, "Content-Type": "application/octet-stream"}
    try:
        urllib.request.urlopen(urllib.request.Request(counter, headers=headers)).read()
    except urllib.error.HTTPError:
        put = urllib.request.Request(counter, b"1", headers, method="PUT")
        urllib.request.urlopen(put)
        raise
    return x


@dsl.pipeline(name="second-time")
def once_more(counter: str, x: int = 3) -> None:
    doubled = double(x=x).set_caching_options(False)
    second_time(x=doubled.output, counter=counter).set_caching_options(False)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def keep(path: str) -> str:
    import os

    with open(path, "a") as file:
        file.write(os.environ["PASSWORD"])
    with open(path) as file, open("/etc/access/password") as mounted:
        return f"{file.read()} {mounted.read()}"


@dsl.pipeline(name="secrets-and-claims")
def secrets_and_claims(claim: str = "data", path: str = "/data/file") -> None:
    kept = keep(path=path).set_caching_options(False)
    kubernetes.use_secret_as_env(
        kept, secret_name="access", secret_key_to_env={"password": "PASSWORD"}
    )
    kubernetes.use_secret_as_volume(kept, secret_name="access", mount_path="/etc/access")
    kubernetes.mount_pvc(kept, pvc_name=claim, mount_path="/data")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def last(status: dsl.PipelineTaskFinalStatus, word: str) -> str:
    return f"{word} {status.state}"


@dsl.pipeline
def inner(n: int, counter: str) -> int:
    tried = second_time(x=n, counter=counter)
    tried.set_retry(2, backoff_duration="1s").set_caching_options(False)
    return tried.output  # type: ignore[no-any-return]


@dsl.pipeline(name="parts")
def parts(counter: str, word: str = "ended") -> None:
    with dsl.ExitHandler(last(word=word)):
        with dsl.ParallelFor([1, 2, 3]) as item:
            doubled = double(x=item)
        summed = total(xs=dsl.Collected(doubled.output))
        with dsl.If(summed.output > 5, name="large"):
            inner(n=summed.output, counter=counter)
        with dsl.Else():
            double(x=1)


@dsl.pipeline(name="failing-parts")
def failing_parts(word: str = "ended") -> None:
    with dsl.ExitHandler(last(word=word)):
        fail(word=word)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def moment(seed: str, written: dsl.Output[dsl.Dataset]) -> str:
    import time

    with open(written.path, "w") as file:
        file.write(seed)
    return str(time.time_ns())


@dsl.pipeline(name="cached")
def cached(seed: str) -> None:
    moment(seed=seed)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sleep() -> None:
    import time

    print("sleeping", flush=True)
    time.sleep(600)


@dsl.pipeline(name="sleeping")
def sleeping() -> None:
    sleep()


@dsl.pipeline(name="importing")
def unsupported() -> None:

    importer: Any = dsl.importer(
        artifact_uri="s3://mlpipeline/x", artifact_class=dsl.Dataset, reimport=False
    )
    train(data=importer.output)
