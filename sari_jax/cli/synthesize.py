"""Commands by which a model writes captions, questions and chains: `sari data caption` and `sari data synthesize`."""

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
    """Adds the commands under `sari data`."""
    _add_synthesize(commands)
    _add_caption(commands)


def _add_synthesize(commands: Commands) -> None:
    write = command(
        commands,
        "synthesize",
        synthesize,
        "write questions and chains from captions, by a language model behind an endpoint",
        "--out",
        "--endpoint",
        "--model",
    )
    write.add_argument("--captions", metavar="FILE", help="captions.jsonl: what each clip holds")
    write.add_argument(
        "--records", metavar="FILE", help="questions that lack chains; --captions may go with it"
    )
    write.add_argument("--chains", choices=CHAINS, default="both")
    write.add_argument("--api-key-env", metavar="NAME", default="OPENAI_API_KEY")
    write.add_argument("--concurrency", type=at_least(1), default=8, help="requests at once")
    write.add_argument(
        "--cache", metavar="DIR", help="where replies are kept (default: OUT.requests)"
    )
    write.add_argument("--prompts", metavar="DIR", help="prompt files to use in place of ours")
    write.add_argument("--seed", type=at_least(0), default=0)
    write.add_argument(
        "--attempts", type=at_least(1), default=3, help="replies to ask for until one passes"
    )
    write.add_argument("--temperature", type=_number(0.0), default=0.7)
    write.add_argument(
        "--max-tokens", type=at_least(1), default=1024, help="tokens of a reply, at most"
    )
    _add_endpoint(write)


def _add_endpoint(write: argparse.ArgumentParser) -> None:
    """Adds the options of requests and of what they may cost."""
    fields = ("max_tokens", "max_completion_tokens")
    write.add_argument(
        "--length-field",
        choices=fields,
        default=fields[0],
        help="the endpoint's name for --max-tokens",
    )
    write.add_argument(
        "--timeout",
        type=_number(0.001),
        default=300.0,
        metavar="S",
        help="seconds until an attempt is given up",
    )
    write.add_argument(
        "--retries",
        type=at_least(0),
        default=6,
        help="attempts after the first, of a request that fails",
    )
    write.add_argument(
        "--max-tokens-spent", type=at_least(1), metavar="N", help="tokens in all, then stop asking"
    )
    write.add_argument(
        "--price-in", type=_number(0.0), default=0.0, help="of a million prompt tokens"
    )
    write.add_argument(
        "--price-out", type=_number(0.0), default=0.0, help="of a million reply tokens"
    )
    write.add_argument(
        "--max-cost",
        type=_number(0.0),
        help="cost in all, in the prices' currency, then stop asking",
    )


def _add_caption(commands: Commands) -> None:
    caption = command(
        commands,
        "caption",
        caption_clips,
        "write captions for clips that have none, by a model directory",
        "--model",
        "--captions",
        "--out",
    )
    caption.add_argument(
        "--prompts", metavar="DIR", help="folder with a caption.txt to use in place of ours"
    )
    caption.add_argument("--temperature", type=_number(0.0), default=0.0)
    caption.add_argument("--max-tokens", type=at_least(1), default=128)
    caption.add_argument("--seed", type=at_least(0), default=0)
    dtypes = ("float32", "bfloat16")
    caption.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="dtype of activations")
    rows(caption)


def synthesize(args: argparse.Namespace) -> int:
    from sari_jax.atomic import vacant
    from sari_jax.corpus.captions import read_captions
    from sari_jax.corpus.folder import write_corpus
    from sari_jax.corpus.synthesize.synthesis import Writer, by_place
    from sari_jax.corpus.synthesize.templates import Prompts
    from sari_jax.data.ledger import Ledger

    if not args.captions and not args.records:
        raise InputError("name --captions, whose questions to write, or --records that lack chains")
    if args.max_cost is not None and not (args.price_in or args.price_out):
        raise InputError(f"--max-cost {args.max_cost:g} needs --price-in and --price-out")
    out = Path(args.out).resolve()
    vacant(out)
    ledger = Ledger()
    captions = []
    if args.captions:
        # Beside records, captions add to what is known; the ledger counts the records alone.
        captions = read_captions(args.captions, ledger=None if args.records else ledger)
    endpoint = _endpoint(args, out)
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
        records, more["with_caption"] = _with_chains(args, writer, captions, ledger)
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
        "spent": endpoint.budget.report(),
    }
    report = write_corpus(out, ledger, records, **more)
    _warn_of_missing_replies(out, report["dropped"], endpoint.cache.folder)
    print_result(args, {"out": str(out), **report})
    return 0


def _endpoint(args: argparse.Namespace, out: Path) -> Any:
    """Returns the endpoint to ask, with its cache and its budget."""
    from sari_jax.corpus.synthesize.budget import Budget, Limits
    from sari_jax.corpus.synthesize.cache import Cache
    from sari_jax.corpus.synthesize.endpoint import Endpoint, Settings

    cache = Cache(args.cache or out.with_name(f"{out.name}.requests"))
    limits = Limits(
        tokens=args.max_tokens_spent,
        cost=args.max_cost,
        price_in=args.price_in,
        price_out=args.price_out,
    )
    settings = Settings(
        url=args.endpoint,
        model=args.model,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        length_field=args.length_field,
        timeout=args.timeout,
        retries=args.retries,
    )
    budget = Budget(limits, cache.replies(args.model))
    return Endpoint(settings, cache, budget, os.environ.get(args.api_key_env))


def _with_chains(
    args: argparse.Namespace, writer: Any, captions: list[Any], ledger: Any
) -> tuple[list[Any], int]:
    """Returns the records of --records with chains, and for how many of them there is a caption."""
    from sari_jax.corpus.synthesize.synthesis import captions_of
    from sari_jax.data.records import read_records

    records = read_records(args.records, max_bad_fraction=1.0, ledger=ledger)
    known = captions_of(records, captions)
    if captions and not known:
        raise InputError(
            f"{args.captions}: no caption is of a clip, or has the id, of a record in {args.records};"
            " name the captions of the same clips, or leave --captions out"
        )
    return writer.chained(records, known, ledger), len(known)


def _warn_of_missing_replies(out: Path, dropped: dict[str, int], replies: Path) -> None:
    from sari_jax.corpus.synthesize.endpoint import FAILED, FAILING, SPENT

    count = sum(dropped.get(reason, 0) for reason in (SPENT, FAILING, FAILED))
    if count:
        why = "the spending limit was reached" if SPENT in dropped else "requests failed"
        print(
            f"{count} without a reply: {why}. To go on, mend that, remove {out} and give the same command:"
            f" the replies so far are in {replies} and are not asked for again",
            file=sys.stderr,
        )


def caption_clips(args: argparse.Namespace) -> int:
    from sari_jax.corpus.captioning import Captioning, refuse_existing, write_missing
    from sari_jax.corpus.captions import read_captions
    from sari_jax.corpus.synthesize.templates import Prompts
    from sari_jax.data.ledger import Ledger
    from sari_jax.generate.engine import Engine

    out = Path(args.out)
    ledger = Ledger()
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
