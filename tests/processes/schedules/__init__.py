"""Random fault schedules: what goes wrong, in which order, is a pure function of a seed.

    python -m tests.processes.schedules --store redis --schedules 1000
    python -m tests.processes.schedules --store redis --seed 123 --repeat 10

    steps.py       what can happen, as data
    generator.py   a seed's schedule
    nursery.py     processes with credentials, made in milliseconds
    grounds.py     the stores, and what can befall each
    stage.py       plays a schedule, and writes down what happens
    ending.py      ends all faults, and sees that everybody is answered
    judge.py       the invariants, over what was written down
    lanes.py       many schedules, several at a time

What is put in order by construction: a step begins when the one before is
over; a process stops itself at the place that a step names; the server holds
what a step tells it to hold. What the operating system decides stays free, so
a seed that failed may have to be repeated until it fails again.
"""
