"""Hostile inputs of hdp-run, hdp-objdump and hdp-as."""

from __future__ import annotations

from random import Random

from bench.support.fuzz import arrays, containers, lines, options, words, yamls
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import Corpus
from bench.support.fuzz.octets import damage

RUN = ("prog.hdp", "--inputs", "../base/in.npz", "--max-seconds", "4")

_SHOWS = ("-h", "-x", "-t", "-d", "-S")


def _program(rng: Random, corpus: Corpus) -> str:
    """The name of a program of the corpus, without suffix."""
    return rng.choice(corpus.names("hdp/*.hdp"))[:-4]


def _sections(corpus: Corpus, name: str) -> containers.Sections:
    return corpus.keep("sections", name, lambda: containers.parse(corpus.bytes(f"{name}.hdp")))


def _wishes(rng: Random) -> list[str]:
    """Some of what hdp-run can write, so that what serves it alone is reached too."""
    found: list[str] = []
    for words_ in (
        ("-o", "out.npz"),
        ("--layers", "layers.npz"),
        ("--save-masks", "masks.npz"),
        ("--stats", "stats"),
        ("--trace", rng.choice(("trace.json", "trace.pftrace"))),
    ):
        if rng.random() < 0.35:
            found += words_
    return found


@kind("hdp-run", "container", 18_000)
def run_container(rng: Random, corpus: Corpus) -> Case:
    """A program of which one section or the frame is hostile."""
    data = containers.change(rng, _sections(corpus, _program(rng, corpus)))
    return Case((*RUN, *_wishes(rng)), {"prog.hdp": data}, references=(("prog.hdp", "hdp"),))


@kind("hdp-run", "program words", 9_000)
def run_words(rng: Random, corpus: Corpus) -> Case:
    """Legal instructions with other operands, checksums right."""
    name = _program(rng, corpus)
    program = words.program_bytes(words.change(rng, _words(corpus, name)))
    new = {**_sections(corpus, name), containers.PROGRAM: program}
    return Case((*RUN, *_wishes(rng)), {"prog.hdp": containers.join(rng, new)})


def _words(corpus: Corpus, name: str) -> words.Program:
    return corpus.keep("words", name, lambda: words.parse(corpus.bytes(f"{name}.bin")))


@kind("hdp-run", "invented programs", 12_000)
def run_invented(rng: Random, corpus: Corpus) -> Case:
    """The begin of a program and then random instructions with plausible operands."""
    name = _program(rng, corpus)
    program = words.program_bytes(words.invent(rng, _words(corpus, name)))
    new = {**_sections(corpus, name), containers.PROGRAM: program, containers.DEBUG: b"{}"}
    return Case((*RUN, *_wishes(rng)), {"prog.hdp": containers.join(rng, new)})


@kind("hdp-run", "debug.json", 4_800)
def run_debug(rng: Random, corpus: Corpus) -> Case:
    """A debug.json that is not the program's, with everything asked for that reads it."""
    sections = _sections(corpus, _program(rng, corpus))
    new = {**sections, containers.DEBUG: containers.debug(rng, sections)}
    wishes = ("--layers", "layers.npz", "--save-masks", "masks.npz", "--stats", "stats")
    return Case((*RUN, *wishes), {"prog.hdp": containers.join(rng, new)})


@kind("hdp-run", "inputs .npz", 12_000)
def run_inputs(rng: Random, corpus: Corpus) -> Case:
    """Inputs that the program does not take."""
    base = rng.choice(("in.npz", "in.npz", "many.npz"))
    data = arrays.hostile(rng, corpus, base)
    argv = (f"../base/{_program(rng, corpus)}.hdp", "--inputs", "in.npz", *_wishes(rng))
    return Case(argv, {"in.npz": data}, references=(("in.npz", "npz"),))


@kind("hdp-run", "masks .npz", 4_800)
def run_masks(rng: Random, corpus: Corpus) -> Case:
    """Stored masks for a timing run."""
    name = rng.choice(corpus.names("hdp/*.masks.npz"))
    data = arrays.hostile(rng, corpus, name, valid=0.0)
    program = name.removesuffix(".masks.npz") + ".hdp"
    argv = (f"../base/{program}", "--model=timing", "--masks", "masks.npz")
    return Case(argv, {"masks.npz": data}, references=(("masks.npz", "npz"),))


@kind("hdp-run", "reference .npz", 2_400)
def run_reference(rng: Random, corpus: Corpus) -> Case:
    """Outputs to compare with."""
    name = rng.choice(corpus.names("hdp/*.out.npz"))
    data = arrays.hostile(rng, corpus, name, valid=0.0)
    program = name.removesuffix(".out.npz") + ".hdp"
    argv = (f"../base/{program}", "--inputs", "../base/in.npz", "--reference", "golden.npz")
    return Case(argv, {"golden.npz": data}, references=(("golden.npz", "npz"),))


@kind("hdp-run", "hardware .yaml", 9_000)
def run_hardware(rng: Random, corpus: Corpus) -> Case:
    """Another machine than the program was compiled for."""
    program = f"../base/{_program(rng, corpus)}.hdp"
    argv = (program, "--inputs", "../base/in.npz", "--hw", "hw.yaml")
    data = yamls.hardware(rng, corpus)
    return Case(argv, {"hw.yaml": data}, references=(("hw.yaml", "yaml"),))


@kind("hdp-run", "options", 9_000)
def run_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "hdp-run")


@kind("hdp-run", "old programs", 200)
def run_old(rng: Random, corpus: Corpus) -> Case:
    """Programs of earlier versions: read, or refused by version."""
    name = rng.choice(corpus.names("old/*.hdp") or ("hdp/hdp-edge-none.hdp",))
    return Case((f"../base/{name}", "--inputs", "../base/bert.npz", *_wishes(rng)), old=True)


@kind("hdp-objdump", "container", 90_000)
def dump_container(rng: Random, corpus: Corpus) -> Case:
    """A program of which one section or the frame is hostile."""
    data = containers.change(rng, _sections(corpus, _program(rng, corpus)))
    shows = rng.sample(_SHOWS, rng.randint(1, 3))
    return Case(("prog.hdp", *shows), {"prog.hdp": data}, references=(("prog.hdp", "hdp"),))


@kind("hdp-objdump", "program.bin", 330_000)
def dump_words(rng: Random, corpus: Corpus) -> Case:
    """Words alone."""
    name = rng.choice(corpus.names("hdp/*.bin"))
    program = corpus.keep("parsed", name, lambda: words.parse(corpus.bytes(name)))
    start = rng.randrange(len(program))
    data = words.section(rng, words.change(rng, program[start : start + rng.randint(0, 40)]))
    return Case(("program.bin", rng.choice(("-d", "-S"))), {"program.bin": data})


@kind("hdp-objdump", "old programs", 200)
def dump_old(rng: Random, corpus: Corpus) -> Case:
    """Programs of earlier versions: read, or refused by version."""
    name = rng.choice(corpus.names("old/*.hdp") or ("hdp/hdp-edge-none.hdp",))
    return Case((f"../base/{name}", rng.choice(_SHOWS)), old=True)


@kind("hdp-objdump", "options", 20_000)
def dump_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "hdp-objdump")


@kind("hdp-as", "text", 340_000)
def assemble_text(rng: Random, corpus: Corpus) -> Case:
    """The text of a program, or a piece of it."""
    name = rng.choice(corpus.names("hdp/*.s"))
    rows = corpus.keep("rows", name, lambda: corpus.text(name).split("\n"))
    start = rng.randrange(len(rows))
    text = lines.change(rng, "\n".join(rows[start : start + rng.randint(1, 30)]))
    data = text.encode(errors="surrogatepass")
    if rng.random() < 0.1:
        data = damage(rng, data)
    if rng.random() < 0.1:
        return Case(("-", "-o", "program.bin"), stdin=data)
    return Case(("prog.s", "-o", "program.bin"), {"prog.s": data})


@kind("hdp-as", "options", 20_000)
def assemble_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "hdp-as")
