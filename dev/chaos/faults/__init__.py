"""All faults, by name."""

from collections.abc import Mapping

from dev.chaos.faults import broker, commands, database, links, upgrade, workers
from dev.chaos.faults.fault import BrokenPromise, Fault, NotInjected

__all__ = ["FAULTS", "BrokenPromise", "Fault", "NotInjected"]

FAULTS: Mapping[str, type[Fault]] = {
    kind.name: kind
    for kind in (
        workers.KillReceived,
        workers.KillInTransaction,
        workers.KillCommitted,
        workers.KillPublished,
        workers.KillAnywhere,
        workers.KillAll,
        workers.Terminate,
        workers.FreezeWorker,
        workers.ClockJump,
        upgrade.RollingRestart,
        broker.BrokerRestart,
        broker.BrokerKill,
        broker.ClusterKill,
        broker.BrokerFreeze,
        broker.ConnectionsClosed,
        broker.MemoryAlarm,
        broker.EventsRefused,
        broker.DeadLettersRefused,
        broker.StreamDeleted,
        broker.CommandsDeleted,
        database.DatabaseRestart,
        database.DatabaseKill,
        database.DatabaseFreeze,
        database.BackendsTerminated,
        database.ConnectionsTaken,
        database.ReadOnly,
        database.DiskFull,
        links.FrozenBrokerLink,
        links.FrozenDatabaseLink,
        links.SwallowingBrokerLink,
        links.SwallowingDatabaseLink,
        links.LosingBrokerLink,
        links.SlowLinks,
        links.ResetBrokerLink,
        links.ResetDatabaseLink,
        links.CutBeforeCommit,
        links.CutAfterCommit,
        commands.Duplicates,
        commands.Poison,
        commands.Stumbles,
        commands.Hopeless,
        commands.OddHandlers,
    )
}
