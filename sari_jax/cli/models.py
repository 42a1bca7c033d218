"""Commands about a model directory."""

# Heavy imports stand inside the commands: `sari --help` and usage errors need not wait for JAX.

import argparse
import dataclasses
import time

from sari_jax.cli.arguments import Commands, at_least, command, generation, group, print_result


def add(commands: Commands) -> None:
    model = group(commands, "model", "models")
    make = command(model, "assemble", assemble, "assemble a small real checkpoint", "--out")
    make.add_argument("name", choices=("nano", "smol"))
    make.add_argument("--seed", type=at_least(0), default=0)
    make.add_argument(
        "--captions",
        metavar="FILE",
        help="questions with structured chains; the projector starts from the first 200",
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
        "write a run's model as a Hugging Face directory",
        "--workdir",
        "--out",
    )
    out.add_argument("--step", type=int)
    out.add_argument("--model", help="where the run's model directory is now, if it has moved")
    out.add_argument(
        "--adapter", action="store_true", help="the adapter alone, as a PEFT directory"
    )

    command(
        commands,
        "check",
        check,
        "compare a model here with transformers on the same inputs",
        "--model",
    )


def assemble(args: argparse.Namespace) -> int:
    from sari_jax.api.building import assemble_model

    assemble_model(args.name, args.out, seed=args.seed, captions=args.captions)
    text = f"{args.out}: a Hugging Face directory; next: sari train"
    print_result(args, {"model": args.out}, text)
    return 0


def ask(args: argparse.Namespace) -> int:
    from sari_jax.api.model import load, waveform
    from sari_jax.data.styles import style
    from sari_jax.hf.config import read_config

    begun = time.perf_counter()
    # Bad input is refused before the weights are read, which takes minutes for a large model.
    style(args.style)
    longest = read_config(args.model).encoder.seconds
    for path in args.audio:
        waveform(path, longest)
    answer = load(args.model, dtype=args.dtype).ask(
        args.audio,
        args.question,
        args.choices,
        style=args.style,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        seed=args.seed,
    )
    seconds = time.perf_counter() - begun
    names = ("prompt", "completion", "token_ids", "sections", "answer")
    result = {name: getattr(answer, name) for name in names} | {"seconds": seconds}
    text = f"{answer.completion}\n\nanswer: {answer.answer}  ({seconds:.1f} s)"
    print_result(args, result, text)
    return 0


def export(args: argparse.Namespace) -> int:
    from sari_jax.api.exporting import export as write

    written = write(args.workdir, args.out, step=args.step, model=args.model, adapter=args.adapter)
    if written.is_adapter:
        base = f"{written.base_model} as {written.opened_by} opens it"
        text = f"{args.out}: peft.PeftModel.from_pretrained adds it to {base}"
    else:
        text = f"{args.out}: opens with transformers; try: sari check --model {args.out}"
    print_result(args, {"adapter" if written.is_adapter else "model": args.out}, text)
    return 0


def check(args: argparse.Namespace) -> int:
    from sari_jax.evaluate.parity import check as compare

    parity = compare(args.model)
    print_result(args, dataclasses.asdict(parity))
    return 0 if parity.ok else 1
