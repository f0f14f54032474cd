"""Upload the pipeline to Kubeflow Pipelines, as a version that is named after the commit.

The same package again changes nothing. A version of that name with another package is never
replaced.
"""

from __future__ import annotations

import argparse

from ctflow.cli.common import add_json_flag, add_project_flags, clean, line, print_json, tools_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow upload``."""
    add_project_flags(parser)
    add_json_flag(parser)
    parser.add_argument("--from", dest="files", action="append", default=[], metavar="FILE",
                        help="images or a package: the output of --json")  # fmt: skip
    parser.add_argument("--name", help="the version's name; default: the commit's id")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be uploaded, and change nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Build and compile what changed, upload it, and say which version it is."""
    from ctflow.cli.given import documents
    from ctflow.cli.progress import show
    from ctflow.model import Upload
    from ctflow.model.versions import version_name
    from ctflow.stages.train import build, compile_pipeline
    from ctflow.stages.train.packages import unpack
    from ctflow.stages.upload import upload

    # Whatever runs the pipeline usually: this is for Kubeflow Pipelines, with real images.
    args.settings.append("runner=kubeflow")
    tools = tools_of(args)
    given = documents(args.files, "images", "package")
    with show(plain=args.json) as watch:
        if package := given.get("package"):
            package = unpack(package, tools.places["packages"])
        else:
            package = compile_pipeline(tools, given.get("images") or build(tools, watch), watch)
        done: Upload | None = upload(tools, package, args.name, dry_run=args.dry_run)
    name = args.name or version_name(package)
    if args.json:
        print_json(done or {"dry_run": True, "version": name, "package": package.digest})
    elif done is None:
        line("upload", f"would upload {package.digest[:19]} as version {clean(name)}")
    else:
        state = "uploaded" if done.uploaded else "unchanged"
        line("upload", f"{clean(done.pipeline)}   version {clean(done.version)}   {state}")
        if done.url:
            line("", clean(done.url))
    return 0
