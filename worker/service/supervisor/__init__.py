"""Several worker processes under one parent: `worker run --processes N`.

    parent   plan ─▶ supervisor ─▶ child 1 … N   starts, restarts, stops; adds up their health
                                     │ line      one socket pair each: reports up, signals down
    child                          line ─▶ service

The parent does no work of its own. It replaces the command line by `exec`, and imports neither the
service nor its libraries: about 20 MB in place of the 85 MB of a worker.
"""
