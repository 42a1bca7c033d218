"""Stands in for gcloud, kubectl, xpk, docker and sari: records arguments, keeps state, fails on demand.

Called as `stand_in.py NAME ARG...`; everything lies in the folder $CLOUD:

    calls.jsonl   one line per call, [NAME, ARG, ...]
    state.json    what there is: {"slice": STATE or null, "jobset": [CONDITION, ...] or null, ...}
    faults.json   what will go wrong, see `fault`
    hosts/N-W/    the home of worker W of node N, where commands sent by ssh really run
    runs.json     how the runs of `sari` go, per host: {"0-0": ["crash", "finish"]}; "finish" by default
"""

import json
import os
import sys

# It starts hundreds of times a minute, so expensive imports stand where they are needed.
CLOUD = os.environ["CLOUD"]


def read(name, default):
    try:
        with open(f"{CLOUD}/{name}") as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def write(name, value):
    with open(f"{CLOUD}/{name}.{os.getpid()}", "w") as file:
        json.dump(value, file)
    os.rename(file.name, f"{CLOUD}/{name}")


def hosts():
    return sorted(os.listdir(f"{CLOUD}/hosts")) if os.path.exists(f"{CLOUD}/hosts") else []


def fault(verb):
    """Returns the fault of this call of `verb` or None; faults.json has {verb: [None or fault, ...]}, one per call."""
    faults = read("faults.json", {})
    due = faults.get(verb) or [None]
    faults[verb] = due[1:]
    write("faults.json", faults)
    return due[0]


def wait_for(name):
    """Waits for a file, so that a fault at some point of a run happens there on a slow machine too."""
    import time

    until = time.monotonic() + 60
    while not os.path.exists(f"{CLOUD}/{name}") and time.monotonic() < until:
        time.sleep(0.02)


def option(args, name, default=None):
    found = [arg.split("=", 1)[1] for arg in args if arg.startswith(f"--{name}=")]
    return found[-1] if found else default


def stop(message, code=1):
    print(message, file=sys.stderr)
    sys.exit(code)


def end_runs():
    """Ends the processes of this cloud's hosts; checks each process first, since its number may be another's by now."""
    import glob
    import signal

    for path in glob.glob(f"{CLOUD}/hosts/*/sari/runs/*/pid"):
        try:
            pid = int(open(path).read())
            ours = f"CLOUD={CLOUD}".encode() in open(f"/proc/{pid}/environ", "rb").read().split(
                b"\0"
            )
            if ours and os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        except (OSError, ValueError):
            pass


def lose_hosts():
    """Preempts the hosts: neither a process nor a disk is left."""
    import shutil

    end_runs()
    shutil.rmtree(f"{CLOUD}/hosts", ignore_errors=True)


def bash(command, host, folder):
    """Runs a command on a host; returns its exit code."""
    import subprocess

    home = f"{CLOUD}/hosts/{host}"
    os.makedirs(home, exist_ok=True)
    environment = {**os.environ, "HOME": home, "SARI_HOST": host}
    return subprocess.run(["bash", "-c", command], cwd=folder or home, env=environment).returncode


def gcloud(args):
    state = read("state.json", {"slice": None})
    if args[:4] == ["container", "clusters", "list"] or "list" in args[:3]:
        print(state.get("cluster") or "")
        return
    if args[:2] != ["compute", "tpus"]:
        return
    verb, name = args[3], args[4]
    due = fault(verb)
    if verb == "describe":
        comes_to, _, once = (due or "").partition(" once ")
        if comes_to.isupper():  # the slice comes to this state by itself
            if once:
                wait_for(once)
            if state["slice"] == "ACTIVE":
                lose_hosts()
            state["slice"] = comes_to
            write("state.json", state)
        elif due:
            stop(due)
        if state["slice"] is None:
            stop(
                f"ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: {name} was not found"
            )
        print(state["slice"])
    elif due and not due.startswith("passes over node"):
        stop(due)
    elif verb == "create":
        if state["slice"]:
            stop(f"ERROR: ALREADY_EXISTS: {name}")
        nodes = int(option(args, "node-count", "1"))
        for node in range(nodes):
            for worker in range(int(os.environ["WORKERS"])):
                os.makedirs(f"{CLOUD}/hosts/{node}-{worker}")
        write("state.json", {**state, "slice": "ACTIVE"})
    elif verb == "delete":
        lose_hosts()
        write("state.json", {**state, "slice": None})
    elif verb in ("ssh", "scp"):
        node, worker = option(args, "node"), option(args, "worker")
        codes = []
        for host in hosts():
            if due and due.endswith(host.split("-")[0]):
                print("Could not prepare all nodes, attempting to ssh the rest.", file=sys.stderr)
                continue
            if not all(
                w in ("all", h) for w, h in zip((node, worker), host.split("-"), strict=True)
            ):
                continue
            if verb == "scp":
                import shutil

                for source in args[4:]:
                    if source.startswith("/"):
                        shutil.copy(source, f"{CLOUD}/hosts/{host}")
            else:
                if "SSH_READS" in os.environ:  # as ssh does, whatever it may read
                    sys.stdin.read()
                codes.append(bash(option(args, "command"), host, None))
        sys.exit(next((code for code in codes if code), 0))


def xpk(args):
    state = read("state.json", {"slice": None})
    due = fault(f"{args[0]} {args[1]}")
    if due:
        stop(due)
    if args[:2] == ["cluster", "create"]:
        write("state.json", {**state, "cluster": option(args, "cluster")})
    elif args[:2] == ["cluster", "delete"]:
        write("state.json", {**state, "cluster": None, "jobset": None})
    elif args[:2] == ["workload", "delete"]:
        write("state.json", {**state, "jobset": None})
    elif args[:2] == ["workload", "create"]:
        # As xpk's pod does: the command in a subshell, again while its exit code is one to restart on.
        again = {42, *range(127, 256)}
        for part in option(args, "restart-on-exit-codes", "").split(","):
            first, _, last = part.partition("-")
            again |= set(range(int(first), int(last or first) + 1))
        script = f"({option(args, 'command')}) & PID=$!; wait $PID; exit $?"
        for _ in range(int(option(args, "max-restarts")) + 1):
            code = bash(script, "0-0", os.environ["CHECKOUT"])
            if code not in again:
                break
        conditions = ["StartupPolicyCompleted", "Failed" if code else "Completed"]
        write("state.json", {**state, "jobset": conditions, "code": code})


def kubectl(args):
    state = read("state.json", {})
    due = fault("kubectl " + next(arg for arg in args if not arg.startswith("--")))
    if due:
        stop(due)
    if "jobset" in args and state.get("jobset"):
        print(" ".join(["name", *state["jobset"]]), end="")
    elif "pods" in args and "code" in state:
        print(state["code"], end="")


def sari(args):
    host = os.environ["SARI_HOST"]
    if args[0] == "export":
        os.makedirs(after(args, "--out"))
        return
    runs = read(f"runs-{host}.json", read("runs.json", {}).get(host, []))
    write(f"runs-{host}.json", runs[1:])
    todo = runs[0] if runs else "finish"
    checkpoints = after(args, "--workdir") + "/checkpoints"
    there = os.listdir(checkpoints) if os.path.isdir(checkpoints) else []
    newest = max(map(int, there), default=0)
    with open(f"{CLOUD}/sari.jsonl", "a") as log:
        log.write(json.dumps({"host": host, "args": args, "from": newest}) + "\n")

    def save():
        if host == "0-0":  # all hosts write one checkpoint together; one of them is enough here
            os.makedirs(f"{checkpoints}/{newest + 10}", exist_ok=True)

    if todo == "refuse":
        stop("sari: config: no such file", 2)
    if todo == "crash":
        stop("Traceback", 1)
    os.makedirs(checkpoints, exist_ok=True)  # once the model is read
    save()
    if todo == "save, crash":
        stop("Traceback", 1)
    if todo in ("hang", "deaf", "killed"):
        import signal
        import time

        def terminate(*_):
            print(json.dumps({"step": newest + 10, "finished": False}))
            sys.exit(0)

        signal.signal(signal.SIGTERM, signal.SIG_IGN if todo == "deaf" else terminate)
        open(f"{CLOUD}/ready-{host}", "w").close()
        time.sleep(0.5 if todo == "killed" else 120)
        os.kill(os.getppid(), signal.SIGKILL)  # nobody is left to write down how it ended
        os.kill(os.getpid(), signal.SIGKILL)
    if todo == "finish later":
        import time

        time.sleep(1)
    print(json.dumps({"step": newest + 10, "finished": True}))


def after(args, name):
    return args[args.index(name) + 1]


if __name__ == "__main__":
    name, *args = sys.argv[1:]
    if name == "end":
        end_runs()
        sys.exit()
    with open(f"{CLOUD}/calls.jsonl", "a") as log:
        log.write(json.dumps([name, *args]) + "\n")
    {"gcloud": gcloud, "xpk": xpk, "kubectl": kubectl, "sari": sari}.get(name, lambda args: None)(
        args
    )
