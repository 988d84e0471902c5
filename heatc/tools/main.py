"""
`heatc`: compiles a trained PyTorch transformer.

    heatc model.pt2 -o prog.hdp                    an HDP program for hdp-edge
    heatc model_folder -o prog.py                  a NumPy program and its weights
    heatc model.pt2 --hdp-rule paper -o prog.hdp   attention pruned at run time
    heatc model.pt2 --plan plan.json -o prog.hdp   a rule for each attention
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.allocator import keep_freed_memory
from heatc.errors import UsageError
from heatc.rules import PRUNING_RULE, RULES, Rule, RuleError, make_rule, spelling
from heatc.tools.completion import suggest_values
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import (
    ToolParser,
    run_tool,
    suggest,
)
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.lists import LISTS, table_of
from heatc.tools.progress import is_terminal, progress_bars
from heatc.tools.rule_options import add_rule_options, given_options, own_options
from heatc.tools.summary.output import (
    Summary,
    add_output_arguments,
    check_output,
    show,
    wants_summary,
)

if TYPE_CHECKING:
    from xdsl.utils.arg_spec import ArgSpec

    from heatc.progress import ProgressCallback
    from heatc.targets import Options, Target
    from heatc.targets.base import Form
    from heatc.verify import Settings

PROG = "heatc"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, (__doc__ or "").strip())
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="torch.export archive, Hugging Face folder, ...")
    add("-o", dest="output", metavar="FILE", help="the suffix says the form: .hdp .py .mlir .s")
    target = add("--target", metavar="NAME", help="hdp-edge (default), numpy, ... (--list-targets)")
    suggest_values(target, _targets)
    add_hardware_argument(add)
    add("--emit", metavar="FORM", help="ir, asm, hdp, numpy, ...: the form, whatever the suffix")
    add("--inputs", metavar="SPEC", help='e.g. "input_ids=1x128:i64,attention_mask=1x128:i64"')
    add(
        "--weights",
        metavar="FILE",
        action="append",
        default=[],
        help="safetensors file of the weights, or factors, of an .mlir MODEL; may be repeated",
    )
    add("--trust-pickle", action="store_true", help="unpickle MODEL: runs code that it contains")
    add("-O", dest="level", type=int, choices=range(4), default=2, help="0..3, default 2")
    add(
        "--padding",
        choices=("skip", "compute"),
        default="skip",
        help="masked positions of outputs: 0 (default), or computed as PyTorch does",
    )
    add(
        "--input-range",
        metavar="NAME=LOW:HIGH",
        action="append",
        default=[],
        help="what values an input has, NAME=MOST for magnitudes; may be repeated (HDP targets)",
    )
    add("--plan", metavar="FILE", help="plan.json: rules of attentions and factors of layers")
    heat = parser.add_argument_group("factorised weights")
    add = heat.add_argument
    add("--heat", metavar="FORMAT,..", help="e.g. low-rank,ratio=0.5,joint or tt,rank=32")
    add("--calibrate", metavar="FILE", help=".npz of inputs on which factors are near the weights")
    add_rule_options(
        parser,
        "attention pruning (HDP targets)",
        f"rule of all; none without one, {PRUNING_RULE} where an option of it is given",
    )
    _add_check_options(parser)
    add = parser.add_argument_group("the summary").add_argument
    add(
        "--compare-dense",
        action="store_true",
        help="model the dense model's cost, whatever it takes",
    )
    add_config_argument(parser)
    add_output_arguments(parser)
    debug = parser.add_argument_group("looking inside")
    add = debug.add_argument
    add("--dump-phases-to", metavar="DIR", help="write the IR after every pass")
    add("--print-ir-after", metavar="PASS", action="append", default=[], help="to stderr")
    add("--print-ir-after-all", action="store_true", help="to stderr")
    add("--remarks", metavar="FILE", help="what passes decided: JSON lines, or - for stderr")
    add("--execute-each", action="store_true", help="run before and after every pass and compare")
    add("--timing", action="store_true", help="seconds of every step, to stderr")
    add("--dump-pass-pipeline", action="store_true", help="print the pipeline and stop")
    add("--pass-pipeline", metavar="PASSES", help="the passes, instead of the target's")
    add(
        "--insert-pass",
        metavar="PASS:after=OTHER",
        action="append",
        default=[],
        help="one more pass, beside another (or PASS{options}:before=OTHER); may be repeated",
    )
    for what in LISTS:
        add(f"--list-{what}", action="store_true", help=f"print the {what} and stop")
    add("--print-hw", metavar="NAME", help="print a resolved hardware description and stop")
    return parser


def _targets() -> Sequence[str]:
    from heatc.targets import target_names

    return tuple(target_names())


def _add_check_options(parser: ToolParser) -> None:
    add = parser.add_argument_group("the check of what was compiled against the model").add_argument
    add("--no-verify", action="store_true", help="write the program without running it")
    add(
        "--verify-seconds",
        metavar="S",
        type=_seconds,
        help="take fewer inputs beyond S seconds, one at least (default: a part of the time that "
        "compiling took)",
    )
    add(
        "--min-cosine",
        metavar="X",
        type=_cosine,
        help="least cosine of every output with the model's, also of a pruned program",
    )
    add("--dump-divergence", metavar="DIR", help="keep inputs and outputs of a wrong program there")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _cosine(text: str) -> float:
    value = float(text)
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside [-1, 1]")
    return value


def _settings(arguments: argparse.Namespace) -> Settings | None:
    """What is said about the check, None where there is to be none."""
    from heatc.verify import Settings

    if arguments.no_verify:
        for name in ("verify_seconds", "min_cosine", "dump_divergence"):
            if getattr(arguments, name) is not None:
                raise UsageError("it says how to verify", place=f"--{spelling(name)}")
        return None
    dump = arguments.dump_divergence
    return Settings(
        arguments.verify_seconds, arguments.min_cosine, None if dump is None else Path(dump)
    )


def _run(argv: Sequence[str]) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if _answer(arguments):
        return 0
    if arguments.model is None:
        raise UsageError("no MODEL given", notes=[f"see {PROG} --help"])
    return _compile(arguments)


def _answer(arguments: argparse.Namespace) -> bool:
    """Print what was asked for instead of a compilation; False where nothing was."""
    if arguments.print_hw:
        from heatc.hardware import load_hardware, render

        print(render(load_hardware(arguments.print_hw)), end="")
    elif listed := next((what for what in LISTS if getattr(arguments, f"list_{what}")), None):
        print(table_of(listed), end="")
    elif arguments.dump_pass_pipeline:
        from heatc.targets import pipeline_text

        print(pipeline_text(_options(arguments, _target(arguments)[0])))
    else:
        return False
    return True


def _target(arguments: argparse.Namespace) -> tuple[Target, Form]:
    """The target and the form of the output; checked before any model is read."""
    from heatc.targets import form_of

    asked = _asked_target(arguments)
    form = _asked_form(arguments, asked)
    target = asked or _usual_target(form)
    if form_of(target, form.name) is None:
        raise UsageError(f"target {target.name!r} has no form {form.name!r}")
    _check_suffix(arguments, form)
    return target, form


def _asked_target(arguments: argparse.Namespace) -> Target | None:
    """The target that --target or --hw names, None where neither is given."""
    from heatc.hardware import load_hardware
    from heatc.targets import Hdp, find_target, target_names

    if arguments.hw is not None and arguments.target is not None:
        raise UsageError("--hw and --target both name the machine", notes=["give one of them"])
    if arguments.hw is not None:
        load_hardware(arguments.hw)
        return Hdp(arguments.hw)
    if arguments.target is None:
        return None
    found = find_target(arguments.target)
    if found is None:
        names = target_names()
        raise UsageError(
            f"unknown target {arguments.target!r}",
            place="--target",
            notes=[*suggest(arguments.target, names), f"targets: {', '.join(names)}"],
        )
    return found


def _usual_target(form: Form) -> Target:
    """The target of a form where none is named."""
    from heatc.targets import Hdp, Numpy

    return Numpy() if form in Numpy().forms else Hdp()


def _asked_form(arguments: argparse.Namespace, target: Target | None) -> Form:
    """The form that --emit names, or the suffix of -o, or the usual one."""
    from heatc.targets import Hdp, all_forms

    forms = all_forms() if target is None else all_forms((target,))
    every = {form.name: form for form in (*all_forms(), *forms)}
    names = "|".join(every)
    if arguments.emit is not None:
        if arguments.emit not in every:
            raise UsageError(f"unknown form {arguments.emit!r}", place="--emit", notes=[names])
        return every[arguments.emit]
    if arguments.output is None or arguments.output == "-":
        return (target or Hdp()).forms[0]
    suffix = Path(arguments.output).suffix
    found = next((f for f in (*forms, *every.values()) if f.suffix == suffix), None)
    if found is None:
        suffixes = ", ".join(f.suffix for f in forms)
        raise UsageError(
            f"cannot tell the form of {arguments.output!r} by its suffix {suffix!r}",
            place="-o",
            notes=[f"use one of {suffixes}, or --emit={names}"],
        )
    return found


def _check_suffix(arguments: argparse.Namespace, form: Form) -> None:
    """A NumPy program is found by its suffix, and its weights by its name."""
    output = arguments.output or ""
    if form.name == "numpy" and output not in ("", "-") and Path(output).suffix != form.suffix:
        raise UsageError("the name of a NumPy program ends in .py", place="-o")


def _options(arguments: argparse.Namespace, target: Target) -> Options:
    from heatc.api import factor_options
    from heatc.pass_text import read_insertion
    from heatc.plan import read_plan
    from heatc.targets import Options

    rule = _rule(arguments)
    plan = None if arguments.plan is None else read_plan(arguments.plan)
    if not target.prunes and ((plan is not None and plan.rules) or rule.name != "none"):
        what = "--plan" if arguments.plan is not None else f"--hdp-rule={rule.name}"
        raise UsageError(
            f"{what} is for HDP targets, the target is {target.name}",
            notes=[f"a program for {target.name} computes dense attention"],
        )
    pipeline = _pipeline(arguments)
    inserted = [read_insertion(text) for text in arguments.insert_pass]
    own = {spec.name for spec in (*(pipeline or ()), *(s for i in inserted for s in i.passes))}
    factors = None
    if plan is not None and pipeline is not None and "apply-plan" not in own:
        raise UsageError(
            "nothing applies the plan",
            place="--plan",
            notes=["put apply-plan into --pass-pipeline, before what is to follow the plan"],
        )
    if pipeline is None:
        factors = factor_options(arguments.heat, arguments.calibrate, plan)
    if arguments.calibrate is not None and factors is None and "heat-decompose" not in own:
        raise UsageError("nothing asks for calibration inputs", place="--calibrate")
    return Options(
        target,
        rule,
        plan,
        arguments.level,
        factors,
        arguments.calibrate,
        arguments.padding,
        pipeline,
        inserted,
        input_range=_input_ranges(arguments, target),
    )


def _input_ranges(arguments: argparse.Namespace, target: Target) -> Sequence[str]:
    """The declared ranges of inputs; wrong texts, and targets that read none, are wrong usage."""
    from heatc.passes.fixing.inputs import read_ranges

    texts: list[str] = arguments.input_range
    try:
        read_ranges(texts)
    except ValueError as error:
        raise UsageError(str(error), place="--input-range") from error
    if texts and target.hw is None:
        raise UsageError(
            f"target {target.name} computes in floating point: no range is needed",
            place="--input-range",
        )
    return texts


def _pipeline(arguments: argparse.Namespace) -> tuple[ArgSpec, ...] | None:
    """The passes of --pass-pipeline, beside which nothing else may choose passes."""
    from heatc.pass_text import read_passes

    if arguments.pass_pipeline is None:
        return None
    beside = [name for name in ("heat",) if getattr(arguments, name)]
    beside += ["hdp_rule"] if _asks_for_a_rule(arguments) else []
    beside += ["padding"] if arguments.padding != "skip" else []
    if beside:
        raise UsageError(
            f"--pass-pipeline and --{spelling(beside[0])} both choose the passes",
            notes=["write the options of passes into the pipeline"],
        )
    return read_passes(arguments.pass_pipeline)


def _rule(arguments: argparse.Namespace) -> Rule:
    """The rule of the command line; wrong values and combinations are wrong usage."""
    given = given_options(arguments)
    if arguments.plan is not None:
        own = ["rule_option"] if arguments.rule_option else []
        beside = ["hdp_rule"] if arguments.hdp_rule is not None else [*given, *own]
        if beside:
            raise UsageError(
                f"--plan and --{spelling(beside[0])} both choose how attention is pruned",
                notes=["give one of them"],
            )
    name = arguments.hdp_rule or (PRUNING_RULE if _asks_for_a_rule(arguments) else "none")
    try:
        return make_rule(name, {**given, **own_options(name, arguments.rule_option)})
    except RuleError as error:
        if error.option == "rule":
            raise _unknown_rule(name) from error
        raise UsageError(str(error), place=f"--{spelling(error.option)}") from error


def _unknown_rule(name: str) -> UsageError:
    return UsageError(
        f"unknown pruning rule {name!r}",
        place="--hdp-rule",
        notes=[*suggest(name, RULES.names), f"rules: {', '.join(RULES.names)}"],
    )


def _asks_for_a_rule(arguments: argparse.Namespace) -> bool:
    is_told = bool(given_options(arguments)) or bool(arguments.rule_option)
    return arguments.hdp_rule is not None or is_told


def _compile(arguments: argparse.Namespace) -> int:
    on_stdout = arguments.output in (None, "-")
    check_output(arguments, stdout_is_taken=on_stdout)
    with progress_bars(arguments.quiet, plain=_shows_text(arguments)) as progress:
        summary = _compile_with(arguments, progress)
    if summary is not None:
        show(summary, arguments, stdout_is_taken=on_stdout)
    return 0


def _shows_text(arguments: argparse.Namespace) -> bool:
    """Whether IR or the program goes to the terminal, where bars would be in the way."""
    prints = arguments.print_ir_after or arguments.print_ir_after_all
    return bool(prints) or (arguments.output in (None, "-") and is_terminal(sys.stdout))


def _compile_with(arguments: argparse.Namespace, progress: ProgressCallback) -> Summary | None:
    """The summary of what was compiled, None where nobody reads one."""
    target, form = _target(arguments)
    options = _options(arguments, target)
    _check_output(arguments, form, options)
    settings = _settings(arguments)
    # Imports of the compiler proper: only once the options are known to be good.
    from heatc.api import Compilation
    from heatc.capture import parse_inputs
    from heatc.ir_model import is_ir, refuse_inputs
    from heatc.tools.diagnostics import remark
    from heatc.tools.summary.changes import Changes
    from heatc.tools.summary.compiled import Compiled, summarize

    if options.heat is not None:
        keep_freed_memory()
    inputs = parse_inputs(arguments.inputs) if arguments.inputs else None
    changes = Changes()
    compilation = Compilation(
        options,
        dump_phases_to=arguments.dump_phases_to,
        print_ir_after=frozenset(
            n.strip() for names in arguments.print_ir_after for n in names.split(",")
        ),
        print_ir_after_all=arguments.print_ir_after_all,
        execute_each=arguments.execute_each,
        remarks=arguments.remarks,
        verify=settings,
        progress=progress,
        instruments=[changes],
    )
    if is_ir(arguments.model):
        refuse_inputs(inputs, "--inputs")
        compilation.read_ir(arguments.model, arguments.weights)
    else:
        compilation.capture(arguments.model, inputs, trust_pickle=arguments.trust_pickle)
    compilation.run()
    is_chosen = options.plan is not None or options.pipeline is not None
    if compilation.attentions and not is_chosen and not _asks_for_a_rule(arguments):
        remark(
            f"all attention is computed; --hdp-rule={PRUNING_RULE} prunes it, heatc-tune calibrate "
            "chooses pruning on your data (--plan)",
            place=PROG,
        )
    compilation.write(arguments.output, form.name)
    if arguments.timing:
        for name, seconds in compilation.seconds:
            print(f"{seconds * 1e3:10.1f} ms  {name}", file=sys.stderr)
    if not wants_summary(arguments) or (form.name == "ir" and arguments.json is None):
        return None
    return summarize(Compiled(arguments, compilation, changes, form.name), progress)


def _check_output(arguments: argparse.Namespace, form: Form, options: Options) -> None:
    """Refuse an output that cannot be, or that would destroy something, before the work."""
    from heatc.commands import HEATC
    from heatc.names import phase_files
    from heatc.targets import pipeline

    if arguments.output in (None, "-") and not form.is_text:
        raise UsageError(f"the form {form.name!r} needs a file", place="-o")
    names = [spec.name for spec in pipeline(options)]
    factors, phases = "heat-decompose" in names, phase_files(names)
    HEATC.check({**vars(arguments), "form": form, "has_factors": factors, "phases": phases})


if __name__ == "__main__":
    sys.exit(main())
