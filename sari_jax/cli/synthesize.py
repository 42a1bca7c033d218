"""Commands that write what sound alone does not tell: `sari data synthesize` and `sari data caption`."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sari_jax.cli.arguments import Commands, at_least, command, print_result, rows
from sari_jax.errors import InputError

CHAINS = {
    "both": ("structured", "free"),
    "structured": ("structured",),
    "free": ("free",),
    "none": (),
}


def add(commands: Commands) -> None:
    """Below `sari data`."""
    write = command(
        commands,
        "synthesize",
        synthesize,
        "captions to questions and chains, by a language model behind an endpoint",
        "--out",
        "--endpoint",
        "--model",
    )
    write.add_argument("--captions", metavar="FILE", help="captions.jsonl: what clips hold")
    write.add_argument(
        "--records", metavar="FILE", help="questions that lack chains; --captions may go with it"
    )
    write.add_argument("--chains", choices=CHAINS, default="both")
    write.add_argument("--api-key-env", metavar="NAME", default="OPENAI_API_KEY")
    write.add_argument("--concurrency", type=at_least(1), default=8, help="requests at once")
    write.add_argument("--cache", metavar="DIR", help="replies; by default OUT.requests")
    write.add_argument("--prompts", metavar="DIR", help="prompt files that stand in for ours")
    write.add_argument("--seed", type=at_least(0), default=0)
    write.add_argument("--attempts", type=at_least(1), default=3, help="until a reply passes")
    write.add_argument("--temperature", type=_number(0.0), default=0.7)
    write.add_argument("--max-tokens", type=at_least(1), default=1024, help="of a reply")
    fields = ("max_tokens", "max_completion_tokens")
    write.add_argument(
        "--length-field", choices=fields, default=fields[0], help="what the endpoint calls it"
    )
    write.add_argument(
        "--timeout", type=_number(0.001), default=300.0, metavar="S", help="of an attempt"
    )
    write.add_argument("--retries", type=at_least(0), default=6, help="of a request that fails")
    write.add_argument("--max-tokens-spent", type=at_least(1), metavar="N", help="then stop asking")
    write.add_argument("--price-in", type=_number(0.0), default=0.0, help="a million tokens")
    write.add_argument("--price-out", type=_number(0.0), default=0.0, help="a million tokens")
    write.add_argument("--max-cost", type=_number(0.0), help="in the prices' currency")

    caption = command(
        commands,
        "caption",
        caption_clips,
        "captions for the clips that have none, by a model of ours",
        "--model",
        "--captions",
        "--out",
    )
    caption.add_argument("--prompts", metavar="DIR", help="whose caption.txt stands in for ours")
    caption.add_argument("--temperature", type=_number(0.0), default=0.0)
    caption.add_argument("--max-tokens", type=at_least(1), default=128)
    caption.add_argument("--seed", type=at_least(0), default=0)
    dtypes = ("float32", "bfloat16")
    caption.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="of activations")
    rows(caption)


def synthesize(args: argparse.Namespace) -> int:
    from sari_jax.atomic import vacant
    from sari_jax.corpus.captions import read_captions
    from sari_jax.corpus.folder import write_corpus
    from sari_jax.corpus.synthesize.budget import Budget, Limits
    from sari_jax.corpus.synthesize.cache import Cache
    from sari_jax.corpus.synthesize.endpoint import FAILED, FAILING, SPENT, Endpoint, Settings
    from sari_jax.corpus.synthesize.synthesis import Writer, by_place, captions_of
    from sari_jax.corpus.synthesize.templates import Prompts
    from sari_jax.data.ledger import Ledger
    from sari_jax.data.records import read_records

    if not args.captions and not args.records:
        raise InputError("name --captions, whose questions to write, or --records that lack chains")
    if args.max_cost is not None and not (args.price_in or args.price_out):
        raise InputError(f"--max-cost {args.max_cost:g} needs --price-in and --price-out")
    out = Path(args.out).resolve()
    vacant(out)
    ledger = Ledger()
    captions = []
    if args.captions:
        # Beside records they only add to what is known, and are not what is accounted for.
        captions = read_captions(args.captions, ledger=None if args.records else ledger)
    cache = Cache(args.cache or out.with_name(f"{out.name}.requests"))
    limits = Limits(args.max_tokens_spent, args.max_cost, args.price_in, args.price_out)
    budget = Budget(limits, cache.replies(args.model))
    settings = Settings(
        url=args.endpoint,
        model=args.model,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        length_field=args.length_field,
        timeout=args.timeout,
        retries=args.retries,
    )
    endpoint = Endpoint(settings, cache, budget, os.environ.get(args.api_key_env))
    writer = Writer(
        endpoint=endpoint,
        prompts=Prompts(args.prompts),
        chains=CHAINS[args.chains],
        seed=args.seed,
        attempts=args.attempts,
        concurrency=args.concurrency,
    )
    more: dict[str, Any] = {}
    if args.records:
        records = read_records(args.records, max_bad_fraction=1.0, ledger=ledger)
        known = captions_of(records, captions)
        if captions and not known:
            raise InputError(
                f"{args.captions}: no caption is of a clip, or has the id, of a record in {args.records};"
                " name the captions of the same sounds, or leave --captions out"
            )
        more["with_caption"] = len(known)
        records = writer.chained(records, known, ledger)
    else:
        records = writer.questions(captions, ledger)
    more |= {
        "right_by_place": by_place(records),
        "model": args.model,
        "temperature": args.temperature,
        "seed": args.seed,
        "requests": {
            "sent": endpoint.sent,
            "cached": endpoint.cached,
            "failed": endpoint.failed,
        },
        "spent": budget.report(),
    }
    report = write_corpus(out, ledger, records, **more)
    if left := sum(report["dropped"].get(reason, 0) for reason in (SPENT, FAILING, FAILED)):
        why = "the spending limit was reached" if SPENT in report["dropped"] else "requests failed"
        print(
            f"{left} without a reply: {why}. To go on, mend that, remove {out} and give the same command:"
            f" what is answered lies in {cache.folder} and is not asked again",
            file=sys.stderr,
        )
    print_result(args, {"out": str(out), **report})
    return 0


def caption_clips(args: argparse.Namespace) -> int:
    from sari_jax.corpus.captioning import Captioning, refuse_existing, write_missing
    from sari_jax.corpus.captions import read_captions
    from sari_jax.corpus.synthesize.templates import Prompts
    from sari_jax.data.ledger import Ledger
    from sari_jax.generate.engine import Engine

    out, ledger = Path(args.out), Ledger()
    refuse_existing(out)  # before the model is loaded
    captions = read_captions(args.captions, ledger=ledger)
    engine = Engine(args.model, dtype=args.dtype)
    settings = Captioning(
        model=str(Path(args.model).absolute()),
        prompts=Prompts(args.prompts),
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        rows=args.rows,
        seed=args.seed,
    )
    write_missing(engine, captions, out, ledger, settings)
    print_result(args, {"out": args.out, **ledger.report()})
    return 0


def _number(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not least <= float(text) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least:g}")
        return float(text)

    return number
