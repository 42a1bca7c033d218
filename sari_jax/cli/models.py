"""Commands about a model directory."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import dataclasses
import time
from pathlib import Path

from sari_jax.cli.arguments import Commands, at_least, command, generation, group, print_result
from sari_jax.errors import InputError

CAPTIONS = 200  # that a projector starts from


def add(commands: Commands) -> None:
    model = group(commands, "model", "models")
    make = command(model, "assemble", model_assemble, "assemble a small real checkpoint", "--out")
    make.add_argument("name", choices=("nano", "smol"))
    make.add_argument("--seed", type=at_least(0), default=0)
    make.add_argument(
        "--captions",
        metavar="FILE",
        help="of questions with structured chains: the projector starts from the first 200",
    )

    question = command(
        commands, "ask", ask, "ask a model about sound files", "--model", "--question"
    )
    question.add_argument("--audio", nargs="+", required=True)
    question.add_argument("--choices", nargs="+")
    generation(question, temperature=0.0)

    out = command(
        commands,
        "export",
        export,
        "a run's model as a Hugging Face directory",
        "--workdir",
        "--out",
    )
    out.add_argument("--step", type=int)
    out.add_argument("--model", help="where the run's model directory lies now, if it has moved")
    out.add_argument(
        "--adapter", action="store_true", help="the adapter alone, as a PEFT directory"
    )

    command(
        commands, "check", check, "the same inputs through transformers and through us", "--model"
    )


def model_assemble(args: argparse.Namespace) -> int:
    from sari_jax.assemble import assemble
    from sari_jax.data.records import read_records

    captioned = read_records(args.captions)[:CAPTIONS] if args.captions else []
    captions = [(record.chain_structured or {}).get("caption", "").strip() for record in captioned]
    if "" in captions:
        bare = captioned[captions.index("")]
        raise InputError(
            f"{args.captions}: record {bare.id} has no caption in a chain_structured; give records that have one"
        )
    if captions and len(set(captions)) < 2:
        raise InputError(
            f"{args.captions}: all of {len(captioned)} captions are the same; give at least two that differ"
        )
    assemble(args.name, Path(args.out), seed=args.seed, captioned=captioned)
    print_result(
        args, {"model": args.out}, f"{args.out}: a Hugging Face directory; next: sari train"
    )
    return 0


def ask(args: argparse.Namespace) -> int:
    from sari_jax.audio.clips import load_clip
    from sari_jax.data.processor import Shapes
    from sari_jax.data.styles import question_text, style
    from sari_jax.generate.engine import Engine
    from sari_jax.hf.config import read_config

    begun = time.perf_counter()
    answer_style = style(args.style)
    seconds = read_config(args.model).encoder.seconds
    waveforms = [load_clip(path, longest=seconds) for path in args.audio]
    engine = Engine(args.model, dtype=args.dtype)
    text = question_text(args.question, tuple(args.choices or ()), answer_style)
    example = engine.processor.encode(
        engine.processor.prompt_text(text, len(waveforms)), waveforms, args.audio
    )
    max_tokens = args.max_tokens or answer_style.max_tokens
    sampler = engine.sampler(1, max_tokens, args.temperature)
    (answered,) = engine.answer([example], sampler, Shapes(), rows=1, seed=args.seed)
    completion = answered.texts[0]
    told = {
        "prompt": example.text,
        "completion": completion,
        "token_ids": answered.token_ids[0],
        "sections": answer_style.sections(completion),
        "answer": answer_style.answer(completion),
        "seconds": time.perf_counter() - begun,
    }
    print_result(args, told, f"{completion}\n\nanswer: {told['answer']}  ({told['seconds']:.1f} s)")
    return 0


def export(args: argparse.Namespace) -> int:
    from sari_jax.hf.adapter import export_adapter as write_adapter
    from sari_jax.hf.config import read_family
    from sari_jax.hf.export import export as write_model
    from sari_jax.train.loop import trained_params
    from sari_jax.train.workdir import read_run

    run = read_run(Path(args.workdir), args.model)
    config, params = trained_params(run, Path(args.workdir), args.step)
    if args.adapter:
        if config.adapter:  # with its dropout, of which the network knows nothing
            config = dataclasses.replace(config, adapter=run.model.adapter)
        write_adapter(params, config, Path(run.model.path), Path(args.out))
        opened = read_family(run.model.path).reference
        told = f"{args.out}: peft.PeftModel.from_pretrained adds it to {run.model.path} as {opened} opens it"
        print_result(args, {"adapter": args.out}, told)
        return 0
    write_model(params, config, Path(run.model.path), Path(args.out))
    print_result(
        args,
        {"model": args.out},
        f"{args.out}: opens with transformers; try: sari check --model {args.out}",
    )
    return 0


def check(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.parity import check as compare

    result = compare(Path(args.model))
    print_result(args, dataclasses.asdict(result))
    return 0 if result.ok else 1
