"""How long a command takes, at a load that does not wait for answers (`make bench-latency`).

    sender.py    a process of its own: sends each command at its time, whatever comes back
    turn.py      one contender at one rate: started, loaded, watched from outside
    report.py    turns of several rounds, added up: percentiles, ratios, what could not be kept up
    plot.py      the same as a picture

Latency is counted from the time at which a command *should* have been sent to the arrival of its
event at an observer. So a sender that is held up, or a contender that falls behind, shows in every
command of that time, and is not left out because nobody asked meanwhile.
"""
