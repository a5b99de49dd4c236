"""Run the bench from beginning to end."""

from __future__ import annotations

from rich.console import Console

from lighter_async.advice import judge
from lighter_async.cli.bench.choice import choose
from lighter_async.cli.bench.figures import baseline_of, figures_of, inline_of
from lighter_async.cli.bench.folders import fresh_folder
from lighter_async.cli.bench.grid import rounds
from lighter_async.cli.bench.loops import make_step
from lighter_async.cli.bench.options import (
    BenchOptions,
    check_files,
    check_memory,
    settings_of,
    shape_of,
    writer_of,
)
from lighter_async.cli.bench.plan import check_space, make_plan, try_out
from lighter_async.cli.bench.record import machine_line, save_record
from lighter_async.cli.bench.report import baseline_line, figures_table, inline_line
from lighter_async.cli.bench.runs import Job, Run, inline_writer
from lighter_async.cli.bench.workload import Workload, make_batches
from lighter_async.cli.steps import step as progress
from lighter_async.limits import usable_cores

__all__ = ["run_job"]


def run_job(options: BenchOptions) -> None:
    """Run the loop over the grid, and report the figures.

    Raises:
        BadOption: An option cannot be used here. Nothing was run.
        OSError: The disk cannot be written to.
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C. The files are removed.
    """
    check_files(options)
    check_memory(options)
    writer = writer_of(options.format)
    settings = settings_of(options, writer)
    workload = Workload(
        kind=options.kind,
        step_seconds=options.step_seconds,
        shape=shape_of(options),
        dtype="str" if options.format == "text" else options.dtype or "float32",
        batch_size=options.batch_size,
        format=options.format,
    )
    batches = make_batches(workload)
    has_inline = inline_writer(writer) is not None
    order = rounds(settings, options.repeats, inline=has_inline)
    count = sum(map(len, order))
    # No markup, since paths may contain brackets.
    console = Console(markup=False, highlight=False, soft_wrap=True)
    runs: list[Run] = []
    with fresh_folder(options.directory) as folder:
        cost = try_out(workload, writer, batches, folder)
        plan = make_plan(options, cost, settings, [turn for one in order for turn in one])
        check_space(plan, options.directory)
        step = make_step(options.kind, options.step_seconds)
        console.print(machine_line())
        console.print(f"{workload}, into {options.directory}")
        job = Job(workload=workload, writer=writer, batches=batches, step=step, steps=plan.steps, folder=folder)
        beside = ", inline writing and the loop without writing" if has_inline else " and the loop without writing"
        title = (
            f"{len(settings)} settings{beside}, {plan.steps} steps a run, {options.repeats} "
            f"repeats taking turns: {count} runs, about {plan.seconds:.0f} s"
        )
        with progress(console, title, count, undisturbed=True) as tick:
            for number, turns in enumerate(order):
                for turn in turns:
                    runs.append(job.run(turn, number))
                    tick()

    baseline = baseline_of(runs)
    figures = figures_of(runs, workload, plan.steps)
    inline = inline_of(runs, workload, plan.steps)
    choice = choose(figures, noise=baseline.noise)
    chosen = next(one for one in figures if one.setting == choice.setting)
    console.print()
    console.print(figures_table(figures, inline, choice.setting, options.repeats))
    console.print(baseline_line(baseline))
    verdict = judge(
        {"the samples": chosen.stats},
        cores=usable_cores(),
        left_seconds=chosen.left_seconds,
        slowdown=chosen.slowdown.median,
    )
    console.print(f"\n{choice.line}")
    console.print(choice.reason)
    if inline is not None:
        console.print(inline_line(inline, chosen))
    if verdict.bound != "model":
        console.print(verdict.sentence)
    if options.json is not None:
        save_record(
            options.json,
            workload=workload,
            step=step,
            plan=plan,
            runs=runs,
            baseline=baseline,
            figures=figures,
            inline=inline,
            choice=choice,
        )
        console.print(f"figures: {options.json}")
    if options.plot is not None:
        from lighter_async.cli.bench.plot import save_plot

        save_plot(options.plot, figures, inline, choice.setting, title=str(workload), caption=machine_line())
        console.print(f"plot: {options.plot}")
