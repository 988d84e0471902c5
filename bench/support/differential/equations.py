"""Einsum: equations of the test-suites of NumPy and opt_einsum, and random ones."""

from __future__ import annotations

import random

from bench.support.differential.program import (
    Choices,
    Extents,
    Output,
    Port,
    Program,
    Writer,
    finished,
)

# What numpy/_core/tests/test_einsum.py and opt_einsum/tests contract, as far as PyTorch takes it.
_PUBLIC = """
    ijp,ipq,ikq->ijk cacc,bcb-> ij,jk->ik , ii->i i->i ij->i i...k->... ij,j ij,jh ij-> i->
    i,i-> ijk,j->ijk ik,kj->ij ijkl,k->ijl ...lmn,...lmno->...o cl,cpx->lpx cl,cpxy->lpxy
    aabb->ab ijij-> mi,mi,mi->m im,im,im->m i,i->i i,->i ,i->i ,i-> i,-> i,i,i-> i,i,i,i->
    ...ij,...jk->...ik a,ab,abc->abc a,b,ab->ab ea,fb,gc,hd,abcd->efgh ea,fb,abcd,gc,hd->efgh
    abcd,ea,fb,gc,hd->efgh acdf,jbje,gihb,hfac,gfac,gifabc,hfac cd,bdhe,aidb,hgca,gc,hgibcd,hgac
    abhe,hidj,jgba,hiab,gab bde,cdh,agdb,hica,ibd,hgicd,hiac chd,bde,agbc,hiad,hgc,hgi,hiad
    chd,bde,agbc,hiad,bdi,cgh,agdb bdhe,acad,hiab,agac,hibd ab,ab,c-> ab,ab,c->c ab,ab,cd,cd->
    ab,ab,cd,cd->ac ab,ab,cd,cd->cd ab,ab,cd,cd,ef,ef-> ab,cd,ef->abcdef ab,cd,ef->acdf
    ab,cd,de->abcde ab,cd,de->be ab,bcd,cd->abcd ab,bcd,cd->abd eb,cb,fb->cef dd,fb,be,cdb->cef
    bca,cdb,dbf,afc-> dcc,fce,ea,dbf->ab fdf,cdd,ccd,afe->ae abcd,ad ed,fcd,ff,bcf->be
    baa,dcf,af,cde->be bd,db,eac->ace fff,fae,bef,def->abd efc,dbc,acf,fd->abe ba,ac,da->bcd
    ab,ab ab,ba abc,abc abc,bac abc,cba aab,fa,df,ecc->bde ecb,fef,bad,ed->ac bcf,bbb,fbf,fc->
    bb,ff,be->e bcb,bb,fc,fff-> fbb,dfd,fc,fc-> afd,ba,cc,dc->bf adb,bc,fa,cfc->d
    bbd,bda,fc,db->acf dba,ead,cad->bce aef,fbc,dca->bde bbcdc->d ijk,kl,jl ijk,kl,jl,i->i
    abjk,kl,jl abjk,kl,jl,ab->ab obk,ijk->ioj a,b,c->abc acdf,jbje,gihb,hfac
    a,ac,ab,ad,cd,bd,bc-> cab,cdd->ab ab,bc,cd,de->ae a,a,a->a aabcb,abc ij->j ...ii->...i
    ii...->...i ...ii->i... jii->ij ii...->i... i...i->i... i...i->...i iii->i ijk->jik ...,...
    ij,jk,kl i,i,i->i z,mz,zm-> ij,ij->j i,i ji,i-> i,ij-> ij,i-> ij...,j...->i... ...i,...i
    ijklm,ijn,ijn-> ijklm,ijn-> x,yx,zx->xzy i,j ...ft,mf->...mt ...i->... i...->... i...,i...
    ji,j ij,jk ijk,jil->kl ij...,j...->ij... ij...,...j->ij... ij...,j->ij... ik...,k...->i...
    ik...,...kj->i...j ...k,kj ik,k...->i... ijkl,k ...kl,k ...kl,k... ...lmn,lmno->...o ->
    ab,bc->ca abc,bcd,dea abc,def->fedcba abc,bcd,df->fa ijk,ikj i,j->ij ijk,k->ij AB,BC->CA
    ij,jk,kl->li ij,jk,kl-> ij,jk,kl->il a,->a ab,->ab ,ab,->ab ,,-> ab,bc ab,cb ba,bc ba,cb
    abcd,cd abcd,ab abcd,cdef abcd,cdef->feba abcd,efdc aab,bc->ac ab,bcc->ac aab,bcc->ac
    baa,bcc->ac aab,ccb->ac ab,bc,cd hbc,bdef,cdkj,ji,ikeh,lfo bdef,cdkj,ji,ikeh,hbc,lfo
    ijab,acd,bce,df,ef->ji ab,cd,ad,cb ab,bc->ac ajk,kbl,jl,ab->ab ab,bc,bd->acd bc,ab->bca
    bca,bd->acd ab,-> ...a->...a ...a->... ...b,...a->... a...->... a...a->...a a,b ...a,...b
    ij->ij ...a,ab da,ab abc,bdef,fghj,cem,mhk,ljk->adgl abc,cfd,dbe,efa nlp,nlq,pl->n
    a,bcd,efg-> a,b,abc->c ,a,->a ,,a,->a a,b,c ab,cd,ef,fg ab,bc,cd-> ab,bc,de-> ab,bc,cd->a
    ab,bc,cd->b ab,bc,cd->c a,b-> c,d->
"""
PUBLIC = tuple(_PUBLIC.split())
RANDOM = 1500
"""How many random equations there are"""

_EXTENTS = Extents(1, 1, 1, 1, 1)
_LETTERS = "abcdefgh"
_MOST = 200_000
"""Products of a naive evaluation, at most"""


def programs() -> list[tuple[str, int]]:
    """Every equation with its seed: the public ones with three draws of extents each."""
    public = [(equation, seed) for equation in PUBLIC for seed in range(3)]
    return public + [(random_equation(seed), seed) for seed in range(RANDOM)]


def random_equation(seed: int) -> str:
    """One to five operands, with diagonals, sums, outer products and an ellipsis now and then."""
    source = random.Random(f"equation {seed}")
    letters = _LETTERS[: source.randint(1, len(_LETTERS))]
    count = source.choices(range(1, 6), (2, 5, 4, 2, 1))[0]
    terms = ["".join(source.choices(letters, k=source.randint(0, 4))) for _ in range(count)]
    dots = source.random() < 0.15
    if dots:
        at = source.randint(0, len(terms[0]))
        terms[0] = f"{terms[0][:at]}...{terms[0][at:]}"
    known = sorted({c for term in terms for c in term if c != "."})
    left = ",".join(terms)
    if source.random() < 0.15 and not dots:
        return left
    kept = source.sample(known, source.randint(0, len(known)))
    return f"{left}->{'...' if dots else ''}{''.join(kept)}"


def program(equation: str, seed: int) -> Program:
    """A model that contracts its inputs and, half of the time, some weights."""
    source = random.Random(f"{equation}/{seed}")
    choices = Choices(seed, simple=True)
    terms = equation.partition("->")[0].split(",")
    extents = _extents(equation, source)
    dots = [source.choice((1, 2, 3)) for _ in range(source.randint(0, 2))]
    writer = Writer()
    operands: list[str] = []
    for index, term in enumerate(terms):
        shape = _shape(term, extents, dots)
        # An extent of 1 is broadcast by PyTorch.
        if seed % 3 == 2 and "." not in term and len(set(term)) == len(term) and shape:
            at = source.randrange(len(shape))
            shape[at] = source.choice((1, shape[at]))
        if index and source.random() < 0.3:
            operands.append(writer.parameter("weight", *shape))
            continue
        port = Port(f"x{index}", "float32", tuple(shape), "float")
        operands.append(writer.port(port, "." * len(shape)).text)
    text = f"torch.einsum({equation!r}, {', '.join(operands)})"
    return finished(choices, writer, text, [Output("output", "", ())], _EXTENTS)


def _extents(equation: str, source: random.Random) -> dict[str, int]:
    """An extent for each letter, all of them together not too much work."""
    letters = sorted({c for c in equation if c.isalpha()})
    extents = {letter: source.choice((2, 3, 4, 1, 5)) for letter in letters}
    work = 1
    for letter in letters:
        if work * extents[letter] > _MOST:
            extents[letter] = 1
        work *= extents[letter]
    return extents


def _shape(term: str, extents: dict[str, int], dots: list[int]) -> list[int]:
    before, _, after = term.partition("...")
    middle = dots if "..." in term else []
    return [*(extents[c] for c in before), *middle, *(extents[c] for c in after)]
