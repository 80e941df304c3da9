"""The command line, thin: every subcommand hands over to a function of the package.

Exit codes: 0 done, 1 the work failed, 2 the command or the configuration is wrong. Errors are one sentence;
``--debug`` gives the traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlclipsim import lifeline, mishaps, plugins, steps
from mlclipsim.shards import Shard
from mlclipsim.usage import Parser, UsageError

__all__ = ["main"]

Paths = dict[str, Path | list[Path]]
_MOST_LAYERS = 999  # no encoder has more; a longer range is a slip that would fill the memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "zoo" in argv[:2]:  # has a command line of its own
        argv.remove("zoo")
        debug = argv[:1] == ["--debug"]
        return _guarded(debug, _zoo, argv[1:] if debug else argv)
    arguments = _parser().parse_args(argv)
    return _guarded(arguments.debug, arguments.call, arguments)


def _guarded(debug: bool, call: Any, arguments: Any) -> int:
    try:
        lifeline.follow_run()
        code = int(call(arguments) or 0)
        sys.stdout.flush()  # while its errors are still ours to tell
        return code
    except KeyboardInterrupt:
        print("mlclipsim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read standard output has seen enough; nor may the exit write to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError):
            package = (error.name or "").partition(".")[0]
            extra = "codecs" if package == "compressai" else "suite"
            error = RuntimeError(f"this needs {package}, which is not here; pip install 'mlclipsim[{extra}]'")
        wrong = isinstance(error, UsageError)
        text = str(error) if wrong else " ".join(str(error).split())  # a configuration's problems are a list
        if isinstance(error, OSError) and error.filename is not None and text.startswith("[Errno"):
            text = f"{str(error.filename)[:200]}: {error.strerror}; check that path"
        mishap = None if wrong else mishaps.mishap(error)
        print(f"mlclipsim: {mishap or text or type(error).__name__}", file=sys.stderr)
        if not (mishap or wrong or isinstance(error, ValueError | TypeError | RuntimeError | OSError)):
            print(f"mlclipsim: this is a {type(error).__name__}; --debug shows where", file=sys.stderr)
        return 2 if wrong else 1


class _Given(dict[str, Any]):
    """What a step was given under names; who asks for another name hears what to pass."""

    def __init__(self, option: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.option = option

    def __missing__(self, name: str) -> Any:
        raise UsageError(f"this step needs {self.option} with {name!r}; pass it, as the workflow's rules do")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="mlclipsim", description="ML-CLIPSim: machine-oriented image quality.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="command")

    _add_score(commands.add_parser("score", help="similarity of images to their references, at most 1"))

    command = commands.add_parser(
        "distort", help="distort an image by a strength, or to a PSNR as the data set does"
    )
    command.add_argument("input", type=Path, nargs="?", help="the image to distort")
    command.add_argument("output", type=Path, nargs="?", help="where the result goes, as PNG")
    command.add_argument("--list", action="store_true", help="list the families instead")
    command.add_argument("--family", help="the distortion, by name")
    level = command.add_mutually_exclusive_group()
    level.add_argument("--strength", type=float, metavar="T", help="from 0, mildest, to 1, strongest")
    level.add_argument("--psnr", type=float, metavar="DB", help="on 8-bit RGB, peak 255")
    command.add_argument("--seed", type=int, default=0, help="of the families that draw something")
    command.set_defaults(call=_distort)

    command = commands.add_parser("compress", help="code an image into a real bitstream")
    command.add_argument("input", type=Path, help="the image to code")
    command.add_argument("output", type=Path, help="where the stream goes")
    command.add_argument("--codec", required=True, metavar="NAME", help="see `mlclipsim codecs`")
    command.add_argument(
        "--quality",
        type=int,
        required=True,
        metavar="N",
        help="2 is point q2 of a learned codec; of a classical one it is its own scale",
    )
    command.add_argument("--weights", type=Path, metavar="FILE", help="others for the same network")
    command.set_defaults(call=_compress)

    command = commands.add_parser("decompress", help="decode what `compress` wrote")
    command.add_argument("input", type=Path, help="the stream")
    command.add_argument("output", type=Path, help="where the image goes, as PNG")
    command.add_argument("--codec", metavar="NAME", help="accept no other (default: whichever wrote it)")
    command.add_argument("--weights", type=Path, metavar="FILE", help="those that `compress` was given")
    command.set_defaults(call=_decompress)

    command = commands.add_parser("codecs", help="list the codecs, or measure one")
    command.add_argument("--measure", metavar="NAME", help="rate and distortion of this codec on --images")
    command.add_argument("--images", type=Path, metavar="FOLDER", help="of the measurement, as Kodak's")
    command.add_argument("--quality", type=int, nargs="+", metavar="N", help="only these (default: all)")
    command.add_argument("--output", type=Path, metavar="FILE", help="also a row per image, as CSV")
    command.set_defaults(call=_codecs)

    command = commands.add_parser("encoders", help="list the encoders, and which can be used at once")
    command.add_argument("--all", action="store_true", help="also all that open_clip can download")
    command.set_defaults(call=_encoders)

    command = commands.add_parser("metrics", help="list the metrics of others that the benchmarks run")
    command.set_defaults(call=_metrics)

    command = commands.add_parser("fetch", help="download weights and data sets that a catalog names")
    command.add_argument(
        "names", nargs="*", metavar="name", help="of catalogs; none: all that the preset lacks"
    )
    _configurable(command)
    command.set_defaults(call=_fetch)

    command = commands.add_parser("bench", help="judge a metric of yours on the test pairs of a finished run")
    command.add_argument("metric", metavar="MODULE:NAME", help="(reference, distorted) -> a score per image")
    command.add_argument("--lower-is-better", action="store_true", help="of a distance")
    command.add_argument(
        "--run",
        type=Path,
        default=Path("results/embedded/default"),
        metavar="FOLDER",
        help="results/<preset>/<run> (default: %(default)s)",
    )
    command.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: results/<preset>/bench/<run>/<metric>"
    )
    command.add_argument("--batch-size", type=int, metavar="N", help="images at a time (default: the run's)")
    command.set_defaults(call=_bench)

    command = commands.add_parser("check-data", help="say what of a data set is missing or damaged")
    command.add_argument("name", help="of the catalog, config/catalog/datasets.yaml, or a plug-in's")
    _configurable(command)
    command.set_defaults(call=_check_data)

    command = commands.add_parser("config", help="print the configuration that the layers make together")
    _configurable(command)
    command.set_defaults(call=_config)

    commands.add_parser("zoo", help="train the embedded networks (`mlclipsim zoo --help`)")

    command = commands.add_parser("step", help="run one step of the workflow")
    command.add_argument("step", choices=steps.STEPS, metavar="step", help=", ".join(steps.STEPS))
    command.add_argument("--spec", required=True, help="JSON of the config slice that the step reads")
    for kind in ("input", "output"):
        command.add_argument(
            f"--{kind}",
            action="append",
            nargs="+",
            default=[],
            metavar="NAME=PATH",
            help="more paths: a list",
        )
    command.add_argument(
        "--gpus", type=int, default=0, help="take so many that no other job has; 0 hides them from the step"
    )
    some = command.add_mutually_exclusive_group()
    some.add_argument("--shard", metavar="N-of-COUNT", help="only this share of the work")
    some.add_argument("--parts", type=Path, nargs="+", metavar="FOLDER", help="put together what shards made")
    command.set_defaults(call=_step)

    command = commands.add_parser("plan", help="forecast jobs, forward passes, hours, downloads and disk")
    _configurable(command)
    command.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all of this machine")
    command.set_defaults(call=_plan)

    command = commands.add_parser("doctor", help="say what is here, and what each preset still lacks")
    command.add_argument("presets", nargs="*", help="only these; the exit code is 1 if one cannot run")
    command.set_defaults(call=_doctor)

    command = commands.add_parser("provenance", help="print what a result was made from, back to the data")
    command.add_argument("result", type=Path, help="a file below results/")
    command.set_defaults(call=_provenance)

    command = commands.add_parser("verify", help="say which results were touched, are missing or out of date")
    command.add_argument("results", type=Path, nargs="+", help="files or folders below results/")
    command.set_defaults(call=_verify)

    command = commands.add_parser("bibtex", help="print BibTeX of what a run, or one of its results, used")
    command.add_argument("results", type=Path, help="a file or folder below results/")
    command.add_argument("--output", type=Path, help="references.bib, instead of standard output")
    command.set_defaults(call=_bibtex)

    command = commands.add_parser("crate", help="describe a run as an RO-Crate, in its folder")
    command.add_argument("run", type=Path, help="results/<preset>/<run>")
    command.set_defaults(call=_crate)

    command = commands.add_parser("pcmp", help="PCMP as a data set: export, check, look at, extend")
    _add_pcmp(command.add_subparsers(required=True, metavar="action"))
    return parser


def _add_score(command: argparse.ArgumentParser) -> None:
    command.usage = (
        "mlclipsim score [options] REFERENCE DISTORTED\n"
        "       mlclipsim score [options] --reference PATH --distorted PATH"
    )
    command.description = (
        "Two images; two folders, whose images pair by name (path below the folder without extension); "
        "or one reference and a folder. Two images give a number, folders a table in the order of names. "
        "What cannot be scored is listed at the end on standard error, and the exit code is then 1."
    )
    command.add_argument("paths", type=Path, nargs="*", metavar="PATH", help="the reference comes first")
    command.add_argument("--reference", type=Path, metavar="PATH", help="the original image, or a folder")
    command.add_argument("--distorted", type=Path, metavar="PATH", help="the image to judge, or a folder")

    metric = command.add_argument_group("metric")
    metric.add_argument("--encoder", help="see `mlclipsim encoders` (default: ViT-B-32-quickgelu)")
    metric.add_argument("--pretrained", metavar="TAG|FILE", help="open_clip's tag, or a checkpoint file")
    metric.add_argument(
        "--weights",
        metavar="uniform|global|NAME|FILE",
        help="of the layers: equal (default), the embedding alone, fitted ones that ship, or a weights.json",
    )
    metric.add_argument("--layers", type=_numbers, metavar="1,3,5-8", help="only these, from 1")
    metric.add_argument(
        "--size-policy",
        choices=("resize", "tile", "native"),
        default="resize",
        help="of images that are not of the encoder's size (default: resize, then the central square)",
    )

    output = command.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE", help="scores.csv or scores.jsonl")
    output.add_argument("--format", choices=("csv", "jsonl"), help="a table; default: by --output, or csv")
    output.add_argument("--per-layer", action="store_true", help="also each layer's similarity")
    output.add_argument("--map", type=Path, metavar="FOLDER", help="heat maps of where images differ, as PNG")

    running = command.add_argument_group("running")
    running.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="images at a time (default 8)"
    )
    running.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.set_defaults(call=_score)


def _numbers(text: str) -> list[int]:
    """``1,3,5-8`` as a list."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            span = range(int(first), int(last or first) + 1)
        except ValueError:
            span = range(0)
        if not span or span[-1] > _MOST_LAYERS:
            raise argparse.ArgumentTypeError(f"expected numbers and ranges like 1,3,5-8, got {text!r}")
        numbers.extend(span)
    return numbers


def _configurable(command: argparse.ArgumentParser) -> None:
    command.add_argument("--configfile", type=Path, nargs="+", default=[], help="YAML over the preset")
    command.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="over everything else")


def _add_pcmp(actions: Any) -> None:
    action = actions.add_parser("export", help="publish the workflow's tables as one folder")
    action.add_argument(
        "tables", type=Path, nargs="*", help="folders of the tables (default: those of the configuration)"
    )
    action.add_argument("--output", type=Path, required=True, help="folder to make")
    action.add_argument("--name", help="of the data set (default: pcmp-<preset>)")
    action.add_argument("--version", default="1.0.0", help="major.minor.patch")
    action.add_argument("--shards", type=int, default=1, help="files for the images")
    action.add_argument("--without-images", action="store_true", help="the recipe only, no pixels")
    _configurable(action)
    action.set_defaults(call=_pcmp_export)

    action = actions.add_parser("info", help="what a data set holds")
    action.add_argument("folder", type=Path)
    action.set_defaults(call=_pcmp_info)

    action = actions.add_parser("verify", help="check checksums, columns, ids and every pixel")
    action.add_argument("folder", type=Path)
    action.add_argument("--rebuild", action="store_true", help="draw broken or absent shards again")
    action.add_argument("--references", type=Path, help="references.parquet, or a folder of the photographs")
    action.set_defaults(call=_pcmp_verify)

    action = actions.add_parser("sample", help="a sheet of a few pairs with their votes and labels")
    action.add_argument("folder", type=Path)
    action.add_argument("--output", type=Path, required=True, help="sheet.png, .pdf or .svg")
    action.add_argument("--pairs", type=int, default=6, help="how many")
    action.add_argument("--seed", type=int, default=0, help="another one, other pairs")
    action.set_defaults(call=_pcmp_sample)

    action = actions.add_parser("add-votes", help="a new minor version with the votes of further networks")
    action.add_argument("folder", type=Path)
    action.add_argument("--votes", type=Path, required=True, help="parquet: pair_id, voter, vote")
    action.add_argument("--voters", type=Path, required=True, help="parquet: a row for each new voter")
    action.add_argument("--output", type=Path, required=True, help="folder to make")
    action.set_defaults(call=_pcmp_add_votes)


def _step(arguments: argparse.Namespace) -> None:
    try:
        spec = json.loads(arguments.spec)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--spec is no JSON ({error}); pass an object") from None
    if not isinstance(spec, dict):
        raise UsageError(f"--spec is a {type(spec).__name__}, expected a JSON object; pass one")
    threads = spec.get("threads", 1)
    if not isinstance(threads, int) or threads < 1:
        raise UsageError(f"--spec has threads {threads!r}, expected a number from 1; correct it")
    spec = _Given("--spec", spec)
    step = steps.STEPS[arguments.step]
    shard = [Shard.parse(arguments.shard)] if arguments.shard else []
    if (shard or arguments.parts) and not step.shards:
        known = ", ".join(name for name, other in steps.STEPS.items() if other.shards)
        raise UsageError(f"{arguments.step} is one piece of work; shards are of {known}")
    inputs = _Given("--input", _paths("--input", arguments.input, step.lists))
    outputs = _Given("--output", _paths("--output", arguments.output, frozenset()))
    _limit(threads, 0 if arguments.parts else arguments.gpus)
    plugins.verify(spec)

    started = time.time()
    declared = outputs.pop("provenance", None)
    if arguments.parts:
        from mlclipsim.gather import gather

        files = {name: path for name, path in outputs.items() if isinstance(path, Path)}
        gather(arguments.step, spec, arguments.parts, files)
    else:
        from mlclipsim import provenance

        read = provenance.check(inputs)
        steps.function(arguments.step)(spec, inputs, outputs, *shard)
        record = declared if isinstance(declared, Path) else provenance.beside(outputs)
        provenance.write(record, arguments.step, spec, inputs, outputs, started=started, read=read)
    print(f"{arguments.step}: {time.time() - started:.1f} s", file=sys.stderr)


def _limit(threads: int, gpus: int) -> None:
    """Fix the thread counts before anything heavy is imported: the spec sets them, not the machine."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # spinning threads starve each other on a busy machine
    if gpus:
        from mlclipsim.gpus import claim

        claim(gpus)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("MPLBACKEND", "agg")


def _paths(option: str, groups: Sequence[Sequence[str]], lists: frozenset[str]) -> Paths:
    """``name=path`` groups as a dict; a name with several paths, or declared as a list, gives a list."""
    found: dict[str, list[Path]] = {}
    for group in groups:
        name, equals, first = group[0].partition("=")
        if not equals or not name or not first:
            raise UsageError(f"{option} {group[0]!r} is not of the form name=path; name the path")
        found.setdefault(name, []).extend(Path(path) for path in (first, *group[1:]))
    return {name: paths if name in lists or len(paths) > 1 else paths[0] for name, paths in found.items()}


def _zoo(argv: list[str]) -> int:
    from mlclipsim.world import zoo

    return zoo.main(argv)


def _config(arguments: argparse.Namespace) -> None:
    import yaml

    from mlclipsim import spec as specs

    plan = specs.load(_overrides(arguments), planning=True)
    print(yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True), end="")
    for warning in plan.missing:
        print(f"mlclipsim: not there yet: {warning}", file=sys.stderr)


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``--configfile`` and ``--config`` say."""
    from mlclipsim import spec as specs

    overrides: dict[str, Any] = {}
    for path in arguments.configfile:
        overrides = specs.merge(overrides, specs.read_yaml(path))
    for item in arguments.config:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--config {item!r} is not of the form key=value; give a value")
        try:
            overrides[key] = specs.parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"--config {item!r} has no value in YAML ({error}); quote it") from None
    return overrides


def _pcmp_export(arguments: argparse.Namespace) -> None:
    from mlclipsim import citations
    from mlclipsim import spec as specs
    from mlclipsim.artifacts import ArtifactError
    from mlclipsim.pcmp.export import STEPS, export
    from mlclipsim.pcmp.release import check_version

    if arguments.shards < 1:
        raise UsageError(f"expected --shards of 1 or more, got {arguments.shards}")
    try:
        check_version(arguments.version)
    except ArtifactError as error:
        raise UsageError(f"--version: {error}") from None
    plan = specs.load(_overrides(arguments), planning=True)
    for folder in arguments.tables:
        step, dash, digest = folder.resolve().name.rpartition("-")
        if dash and step in STEPS and digest != plan.digest(step):
            raise UsageError(
                f"{folder} is not of this configuration, whose {step} has digest {plan.digest(step)}; pass "
                "the "
                "one that made it with --config or --configfile"
            )
    folders = arguments.tables or [Path(plan.shared(step, "table")).parent for step in STEPS]
    config = {step: plan.slice(step) for step in STEPS}
    photographs = config["references"]["references"]
    if key := plan.catalogs["datasets"][photographs["source"]].get("citation"):  # for the data sheet
        photographs["dataset"]["citation"] = citations.in_words(key)
    made = export(
        folders,
        arguments.output,
        name=arguments.name or f"pcmp-{plan.preset}",
        preset=plan.preset,
        seed=plan.config["seed"],
        config=config,
        folds=plan.config["folds"],
        version=arguments.version,
        shards=arguments.shards,
        images=not arguments.without_images,
    )
    print(f"{arguments.output}: {made.name} {made.version}")


def _pcmp_info(arguments: argparse.Namespace) -> None:
    from mlclipsim.pcmp.release import Description

    for key, value in Description.read(arguments.folder).summary().items():
        print(f"{key:10s} {value}")


def _pcmp_verify(arguments: argparse.Namespace) -> int:
    from mlclipsim.pcmp import verify

    if arguments.rebuild and not arguments.references:
        raise UsageError("--rebuild needs --references: a references.parquet, or a folder of the photographs")
    problems = verify.verify(arguments.folder)
    if arguments.rebuild:
        made = verify.rebuild(arguments.folder, arguments.references, problems)
        print(f"rebuilt: {', '.join(made) or 'nothing'}")
        problems = [problem for problem in problems if problem.file not in made]
    for problem in problems:
        print(f"mlclipsim: {problem}", file=sys.stderr)
    if not problems:
        print(f"{arguments.folder}: sound")
    return 1 if problems else 0


def _pcmp_sample(arguments: argparse.Namespace) -> None:
    from mlclipsim.pcmp.sheet import draw

    draw(arguments.folder, arguments.output, n_pairs=arguments.pairs, seed=arguments.seed)


def _pcmp_add_votes(arguments: argparse.Namespace) -> None:
    from mlclipsim.pcmp.extend import add_votes

    made = add_votes(arguments.folder, arguments.votes, arguments.voters, arguments.output)
    print(f"{arguments.output}: {made.name} {made.version}, {made.history[-1]['change']}")


def _compress(arguments: argparse.Namespace) -> None:
    _limit(1, 0)
    from mlclipsim.compression import coding

    options = {"codec": arguments.codec, "quality": arguments.quality, "weights": arguments.weights}
    print(coding.compress(arguments.input, arguments.output, **options))


def _decompress(arguments: argparse.Namespace) -> None:
    if arguments.output.suffix.lower() != ".png":
        raise UsageError(f"expected an output ending in .png, got {arguments.output.name}; others lose more")
    _limit(1, 0)
    from mlclipsim.compression import coding

    options = {"codec": arguments.codec, "weights": arguments.weights}
    print(coding.decompress(arguments.input, arguments.output, **options))


def _codecs(arguments: argparse.Namespace) -> None:
    if bool(arguments.measure) != bool(arguments.images):
        raise UsageError(
            "expected --measure NAME and --images FOLDER together, got one of them; add the other"
        )
    if not arguments.measure and (arguments.quality or arguments.output):
        raise UsageError("--quality and --output belong to a measurement; add --measure NAME --images FOLDER")
    _limit(1, 0)
    if arguments.measure:
        from mlclipsim.compression import evaluation

        print(evaluation.measure(arguments.measure, arguments.images, arguments.quality, arguments.output))
        return
    from mlclipsim.compression import coding

    print(coding.as_text())


def _encoders(arguments: argparse.Namespace) -> None:
    from mlclipsim import listing

    print(listing.encoders(everything=arguments.all))


def _metrics(_: argparse.Namespace) -> None:
    from mlclipsim import listing

    print(listing.metrics())


def _bench(arguments: argparse.Namespace) -> None:
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise UsageError(f"expected --batch-size of 1 or more, got {arguments.batch_size}; 64 is usual")
    _limit(1, 0)
    from mlclipsim import bench

    run, named = arguments.run, arguments.metric
    output = arguments.output or run.parent / "bench" / run.name / named.replace(":", ".")
    verdict = bench.judge(
        named,
        run,
        output,
        higher_is_better=not arguments.lower_is_better,
        batch_size=arguments.batch_size,
    )
    print(verdict.as_text())
    print(f"\n{output}: table_2.csv, comparisons.csv, scores.parquet")


def _plan(arguments: argparse.Namespace) -> None:
    from mlclipsim import forecast
    from mlclipsim import spec as specs

    if arguments.cores < 1:
        raise UsageError(f"expected --cores of 1 or more, got {arguments.cores}")
    plan = specs.load(_overrides(arguments), planning=True)
    print(forecast.as_table(plan, forecast.forecast(plan, arguments.cores)))


def _doctor(arguments: argparse.Namespace) -> int:
    from mlclipsim import doctor

    text, ready = doctor.report(arguments.presets)
    print(text)
    return 0 if ready else 1


def _provenance(arguments: argparse.Namespace) -> None:
    from mlclipsim import provenance

    print(provenance.as_tree(arguments.result))


def _verify(arguments: argparse.Namespace) -> int:
    from mlclipsim.verify import verify

    failed = False
    for path in arguments.results:
        verdict = verify(path)
        for problem in verdict.problems:
            print(f"mlclipsim: {problem}", file=sys.stderr)
        number = len(verdict.problems)
        state = f"{number} problem{'s' * (number > 1)}" if number else "sound"
        print(f"{path}: {state} ({verdict.n_files} files of {verdict.n_records} steps)")
        if verdict.unmade:
            print(f"incomplete: not made yet, or not on record: {', '.join(verdict.unmade)}")
        if verdict.unrecorded:
            names = ", ".join(verdict.unrecorded[:3]) + (" ..." if len(verdict.unrecorded) > 3 else "")
            print(f"no record says what made {len(verdict.unrecorded)} of their inputs: {names}")
        failed |= bool(verdict.problems)
    return 1 if failed else 0


def _bibtex(arguments: argparse.Namespace) -> None:
    from mlclipsim import citations
    from mlclipsim.atomic import atomic

    text = citations.as_bibtex(arguments.results)
    if arguments.output is None:
        print(text, end="")
        return
    with atomic(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _crate(arguments: argparse.Namespace) -> None:
    from mlclipsim import crate

    print(crate.write(arguments.run))


def _fetch(arguments: argparse.Namespace) -> int:
    from mlclipsim import fetch
    from mlclipsim import spec as specs
    from mlclipsim.artifacts import ArtifactError

    plan = specs.load(_overrides(arguments), planning=True)
    os.environ["MLCLIPSIM_ASSETS"] = str(plan.assets_dir)
    known = plan.outside
    if unknown := [name for name in arguments.names if name not in known]:
        raise UsageError(f"nothing to fetch is called {unknown[0]!r}; expected some of {', '.join(known)}")
    names = arguments.names or [name for catalog, name in plan.used if known.get(name) == catalog]
    failed = 0
    for name in names:
        try:
            print(fetch.fetch(name, plan.catalogs[known[name]][name]), flush=True)
        except ArtifactError as error:  # the others may come all the same
            print(f"mlclipsim: {error}", file=sys.stderr)
            failed += 1
    if failed and len(names) > 1:
        print(f"mlclipsim: {failed} of {len(names)} are not here", file=sys.stderr)
    return 1 if failed else 0


def _check_data(arguments: argparse.Namespace) -> int:
    from mlclipsim import spec as specs
    from mlclipsim.datasets.check import check

    plan = specs.load(_overrides(arguments), planning=True)
    os.environ["MLCLIPSIM_ASSETS"] = str(plan.assets_dir)
    catalog = plan.catalogs["datasets"]
    if arguments.name not in catalog:
        raise UsageError(f"data set {arguments.name!r} is unknown; expected one of {', '.join(catalog)}")
    problems = check(arguments.name, catalog[arguments.name])
    for problem in problems:
        print(f"mlclipsim: {problem}", file=sys.stderr)
    if not problems:
        print(f"{arguments.name}: sound")
    return 1 if problems else 0


def _distort(arguments: argparse.Namespace) -> None:
    from mlclipsim import distortions, images
    from mlclipsim.distortions import listing
    from mlclipsim.pcmp import match

    if arguments.list:
        print(listing.as_text())
        return
    strength, psnr_db, output = arguments.strength, arguments.psnr, arguments.output
    if arguments.input is None or output is None or arguments.family is None:
        raise UsageError("expected INPUT OUTPUT --family NAME; --list shows the families")
    if (strength is None) == (psnr_db is None):
        raise UsageError("expected --strength or --psnr, got neither; say how much to distort")
    if arguments.seed < 0:
        raise UsageError(f"expected --seed of 0 or more, got {arguments.seed}")
    if strength is not None and not 0 <= strength <= 1:
        raise UsageError(f"expected --strength from 0 to 1, got {strength:g}; or ask for a --psnr")
    if psnr_db is not None and not 0 < psnr_db < 100:
        raise UsageError(f"expected --psnr between 0 and 100 dB, got {psnr_db:g}; 22 to 34 is usual")
    if output.suffix.lower() != ".png":
        raise UsageError(f"expected an output ending in .png, got {output.name}; other formats may lose more")
    try:
        family = distortions.family(arguments.family)
    except ValueError as error:
        raise UsageError(str(error)) from None

    reference = images.read_image(arguments.input)
    result = match.distort(reference, family, strength=strength, psnr_db=psnr_db, seed=arguments.seed)
    images.write_png(output, result.image)
    unit = f" {family.unit}" if family.unit else ""
    print(
        f"{family.name}: strength {result.strength:.4f}, "
        f"{family.quantity} {family.parameter(result.strength):.4g}{unit}, PSNR {result.psnr_db:.2f} dB"
    )


def _score(arguments: argparse.Namespace) -> int:
    from mlclipsim import pairing

    reference, distorted = _reference_and_distorted(arguments)
    form = _format(arguments)
    if arguments.batch_size < 1:
        raise UsageError(f"expected --batch-size of 1 or more, got {arguments.batch_size}; 8 is usual")
    if arguments.pretrained and Path(arguments.pretrained).is_dir():
        raise UsageError(f"expected --pretrained as a tag or a file, got the folder {arguments.pretrained}")
    _check_map(arguments, (reference, distorted))
    pairs, problems = pairing.pair_files(reference, distorted)

    from mlclipsim import scoring  # and with it torch, which takes seconds: only for files that are there

    try:
        metric = scoring.load_metric(
            arguments.encoder,
            arguments.pretrained,
            weights=arguments.weights,
            layers=arguments.layers,
            size_policy=arguments.size_policy,
            device=arguments.device,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    failed = scoring.score_files(
        metric,
        pairs,
        output=arguments.output,
        form=form or ("csv" if distorted.is_dir() else "text"),
        per_layer=arguments.per_layer,
        batch_size=arguments.batch_size,
        maps=arguments.map,
    )
    if len(failed) < len(pairs):
        number = f"{len(pairs) - len(failed)} of {len(pairs)} pairs: " if distorted.is_dir() else ""
        words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in metric.identity.items())
        print(f"mlclipsim: {number}{words}", file=sys.stderr)
    for problem in failed + problems:
        print(f"mlclipsim: {problem}", file=sys.stderr)
    return 1 if failed or problems else 0


def _reference_and_distorted(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Both by their options, or both by position, never mixed: which is which is never guessed."""
    named = [path for path in (arguments.reference, arguments.distorted) if path is not None]
    given = named or arguments.paths
    if len(given) != 2 or (named and arguments.paths):
        raise UsageError(
            "expected REFERENCE DISTORTED, in this order, or --reference PATH --distorted PATH, got "
            f"{len(arguments.paths)} by position and {len(named)} by option"
        )
    return given[0], given[1]


def _format(arguments: argparse.Namespace) -> str | None:
    """``csv`` or ``jsonl``, if the command line says so."""
    suffix = arguments.output.suffix.lower() if arguments.output else ""
    form: str | None = arguments.format or {".csv": "csv", ".jsonl": "jsonl"}.get(suffix)
    if arguments.output and form is None:
        raise UsageError(
            f"expected --output ending in .csv or .jsonl, got {arguments.output}; or say --format"
        )
    return form


def _check_map(arguments: argparse.Namespace, sources: tuple[Path, Path]) -> None:
    """Refuse maps that cannot be drawn, or whose folder is one that images are read from."""
    if arguments.map is None:
        return
    if arguments.weights == "global":
        raise UsageError("--map needs layers, but --weights global has none; name other weights")
    folder = arguments.map.resolve()
    for source in sources:
        if source.resolve() in (folder, *folder.parents) or (
            source.is_file() and source.resolve().parent == folder
        ):
            raise UsageError(f"--map {arguments.map} is among the images of {source}; choose another folder")


if __name__ == "__main__":
    sys.exit(main())
