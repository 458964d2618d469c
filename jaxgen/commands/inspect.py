"""`jaxgen inspect`: step, parameter counts, shardings and the digest of a training state."""

from jaxgen import tree
from jaxgen.commands.output import Parser, note, print_json
from jaxgen.parallel import rules
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore


def run(prog: str, arguments: list[str]) -> None:
    """Print what a checkpoint holds."""
    parser = Parser(prog, "Step, parameter counts, shardings, digest of the training state.").of_run()
    args = parser.parse_args(arguments)
    opened = restore(RunFolder(args.folder, tuple(args.allow)), args.step, note)
    nets = {name: tree.count(net.params) for name, net in opened.state.nets.items()}
    report = {
        "step": opened.step,
        "parameters": sum(nets.values()),
        "nets": nets,
        "digest": tree.digest(opened.state),
    }
    if args.json:
        arrays = [
            {"path": path, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "spec": str(leaf.sharding.spec)}
            for path, leaf in tree.leaves(opened.state)
        ]
        return print_json(report | {"arrays": arrays})
    print(*rules.table(opened.state), sep="\n")
    print(f"step {report['step']}  parameters {report['parameters']:,}  digest {report['digest']}")
