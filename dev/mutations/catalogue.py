"""The ways in which the code is broken, and who is to notice."""

from __future__ import annotations

from dev.mutations.mutation import Mutation, change

INTERLEAVINGS = "interleavings/test_interleavings.py::test_the_guarantees_hold_after_every_schedule"

_TRANSACTION = """
async with self._sessions.begin() as session:
    if briefly:
        await wait_briefly(session)
    transaction = Transaction(session, self._registry, self._outcomes, self._limits)
    return await transaction.run(jobs)
"""

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        name="ack on arrival",
        breaks="a command is acknowledged before its transaction has committed",
        guarantee="G1",
        changes=(
            change(
                "processing/lanes.py",
                "self._waiting.append(job)\nself._wake.set()",
                "self._waiting.append(job)\nself._wake.set()\n"
                "source.settle(job.envelope.delivery.tag)",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_lanes.py::test_nothing_is_settled_before_it_is_published",
            INTERLEAVINGS,
        ),
    ),
    Mutation(
        name="ack before the event is confirmed",
        breaks="a command is acknowledged before the broker has its event",
        guarantee="G1",
        changes=(
            change(
                "broker/publisher/settlement.py",
                "faults = await self._publisher.publish("
                "[self._answers.event(*pair) for pair in free])",
                "import asyncio\n"
                "events = [self._answers.event(*pair) for pair in free]\n"
                "faults, self._late = {}, asyncio.ensure_future(self._publisher.publish(events))",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="publish before commit",
        breaks="an event is published whose transaction may yet be rolled back",
        guarantee="G3",
        changes=(
            change(
                "processing/processor.py",
                _TRANSACTION,
                """
                import asyncio
                ran = asyncio.get_running_loop().create_future()

                async def commit_later():
                    try:
                        async with self._sessions.begin() as session:
                            group = Transaction(
                                session, self._registry, self._outcomes, self._limits
                            )
                            ran.set_result(await group.run(jobs))
                    except Exception as fault:
                        ran.done() or ran.set_exception(fault)

                self._late = asyncio.ensure_future(commit_later())
                return await ran
                """,
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="ledger outside the transaction",
        breaks="a crash between the two commits makes the command take effect again",
        guarantee="G2",
        changes=(
            change(
                "processing/transaction.py",
                "await ledger.record(self._session, entries, again=self._again)",
                "self.entries = entries",
                depth=8,
            ),
            change(
                "processing/processor.py",
                _TRANSACTION,
                """
                async with self._sessions.begin() as session:
                    transaction = Transaction(
                        session, self._registry, self._outcomes, self._limits
                    )
                    outcomes = await transaction.run(jobs)
                async with self._sessions.begin() as session:
                    again = transaction._again
                    await ledger.record(session, transaction.entries, again=again)
                return outcomes
                """,
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="no duplicate check",
        breaks="a command that is delivered twice takes effect twice",
        guarantee="G2",
        changes=(
            change(
                "processing/transaction.py",
                "seen = await self._look_up(jobs)",
                "seen: dict[str, Entry] = {}",
                depth=8,
            ),
            change(
                "database/ledger.py",
                "if len(written) != len(entries):",
                "if len(written) > len(entries):",
                depth=4,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="no look into the ledger",
        breaks="a duplicate is never answered",
        guarantee="G1",
        changes=(
            change(
                "processing/transaction.py",
                "seen = await self._look_up(jobs)",
                "seen: dict[str, Entry] = {}",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="a duplicate gets a fresh answer",
        breaks="a duplicate is answered with another event than the first",
        guarantee="G3",
        changes=(
            change(
                "processing/outcomes.py",
                "entry.answer.type, entry.answer.body, replayed=True)",
                "entry.answer.type, entry.answer.body + b' ', replayed=True)",
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="an id may be used again",
        breaks="another command under a used id is answered as if it had been done",
        guarantee="G2",
        changes=(
            change(
                "processing/outcomes.py",
                "if entry.digest != job.envelope.digest:",
                "if not entry.digest:",
                depth=8,
            ),
        ),
        witnesses=("integration/test_outcomes.py::test_the_same_id_with_another_body_is_refused",),
    ),
    Mutation(
        name="prune too early",
        breaks="the ledger forgets commands before their retention has passed",
        guarantee="G2",
        changes=(
            change(
                "database/ledger_retention.py",
                "WHERE recorded_on < now() - CAST(:age AS interval) AND",
                "WHERE recorded_on < now() - CAST(:age AS interval) / 2 AND",
                depth=4,
            ),
        ),
        witnesses=(
            "integration/test_bounds.py::test_pruning_forgets_nothing_within_the_retention",
        ),
    ),
    Mutation(
        name="prune waits for locked rows",
        breaks="pruning waits for commands that are under way, and with it the next pruner",
        guarantee="G8",
        changes=(
            change("database/ledger_retention.py", "FOR UPDATE SKIP LOCKED", "FOR UPDATE", depth=4),
        ),
        witnesses=(
            "integration/test_retention.py::test_a_batch_waits_for_no_row_that_a_command_holds",
        ),
    ),
    Mutation(
        name="a stop returns by nack",
        breaks="after a restart commands with one key are carried out in another order",
        guarantee="G4",
        changes=(
            change(
                "broker/consumer/consumer.py",
                "await subscription.channel.close()",
                "await subscription.channel.basic_nack(0, multiple=True, requeue=True)",
                depth=12,
            ),
        ),
        witnesses=("chaos/test_stop.py::test_what_was_not_begun_at_a_stop_keeps_its_order",),
    ),
    Mutation(
        name="no keyed lanes",
        breaks="commands with one key run in different lanes at once",
        guarantee="G4",
        changes=(
            change(
                "processing/lanes.py",
                "number = next(self._turn) if key is None else hash(key)",
                "number = next(self._turn)",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="held commands change places",
        breaks="what waited for a retry goes on in another order",
        guarantee="G4",
        changes=(
            change(
                "processing/lanes.py",
                "self._waiting.extendleft(reversed(self._parked.pop(key)))",
                "self._waiting.extendleft(self._parked.pop(key))",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="a retry is overtaken",
        breaks="later commands with the key of one that waits for its retry are carried out",
        guarantee="G4",
        changes=(
            change(
                "processing/processor.py",
                "self.held.add(job.key)",
                "pass",
                depth=12,
            ),
            change(
                "processing/lanes.py",
                "if job.key in self._parked:",
                "if False:",
                depth=16,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="a suspect is overtaken",
        breaks="what was delivered behind a suspect, with its key, is carried out before it",
        guarantee="G4",
        changes=(
            change(
                "broker/consumer/shared_queue.py",
                "if self._suspect_came.is_set():",
                "if suspect and not self._careful:",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_consumer.py::test_a_suspect_among_others_runs_alone_when_those_are_done",
        ),
    ),
    Mutation(
        name="only the refused message is published again",
        breaks="events that followed a refused one stay ahead of it",
        guarantee="G4",
        changes=(
            change(
                "broker/publisher/settlement.py",
                "elif not self._held.holds_back(HeldAnswer(job, outcome, otherwise)):",
                "else:",
                depth=12,
            ),
        ),
        witnesses=(
            "unit/test_settlement.py::test_one_that_is_not_taken_holds_back_its_key_alone",
            INTERLEAVINGS,
        ),
    ),
    Mutation(
        name="publish without looking for the culprit",
        breaks="what ends a channel is published again with all that was in flight, for ever",
        guarantee="G5",
        changes=(
            change(
                "broker/publisher/publisher.py",
                "suspicious = code_of(tried.end) is not None or attempt >= SUSPICIOUS_LOSSES",
                "suspicious = False",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_publisher.py::test_neighbours_in_other_lanes_are_found_innocent_at_once",
            "integration/test_answers_that_cannot_leave.py::"
            "test_no_answer_of_the_broker_stops_others[406-event]",
        ),
    ),
    Mutation(
        name="a dead letter that nobody has",
        breaks="a command whose dead letter cannot be published is acknowledged",
        guarantee="G1",
        changes=(
            change(
                "broker/publisher/held_answers.py",
                "delivery.source.reject(delivery.tag)",
                "delivery.source.settle(delivery.tag)",
                depth=12,
            ),
        ),
        witnesses=(
            "unit/test_settlement.py::test_a_dead_letter_that_is_not_taken_is_left_to_the_broker",
        ),
    ),
    Mutation(
        name="swallow a return",
        breaks="an event that no queue took counts as published",
        guarantee="G1",
        changes=(
            change(
                "broker/publisher/batch.py",
                "burst.faults.setdefault(burst.ids.index(id_), _no_queue(method, self.channel))",
                "pass",
                depth=16,
            ),
        ),
        witnesses=(
            "unit/test_publish_batch.py::test_each_message_has_its_own_fault",
            INTERLEAVINGS,
        ),
    ),
    Mutation(
        name="swallow a refusal",
        breaks="an event that the broker would not take counts as published",
        guarantee="G1",
        changes=(
            change(
                "broker/publisher/batch.py",
                "fault = None if positive else DeliveryError(None, Basic.Nack(tag, multiple))",
                "fault = None",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="no dead letter",
        breaks="a command that failed is acknowledged, and kept nowhere",
        guarantee="G1",
        changes=(
            change(
                "broker/publisher/settlement.py",
                "if not letters:",
                "if True:",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="an outcome is dropped by a stop",
        breaks="a lane that stops acknowledges what it has not published",
        guarantee="G1",
        changes=(
            change(
                "processing/lanes.py",
                "await self._publish(settled)",
                """
                if not self._stopping:
                    await self._publish(settled)
                for job, _ in settled if self._stopping else ():
                    job.envelope.delivery.source.settle(job.envelope.delivery.tag)
                """,
                depth=12,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="ack past a straggler",
        breaks="an acknowledgement of several covers one that is not answered",
        guarantee="G1",
        changes=(
            change(
                "broker/consumer/ack_window.py",
                "below = list(takewhile(self._open.__getitem__, self._open))",
                "below = list(self._open) if any(self._open.values()) else []",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_ack_window.py::test_one_frame_acknowledges_all_up_to_the_low_water_mark",
            INTERLEAVINGS,
        ),
    ),
    Mutation(
        name="no second subscription",
        breaks="a consumer that the broker cancelled stays away, in silence",
        guarantee="G6",
        changes=(
            change(
                "broker/consumer/subscription.py",
                "channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())",
                "pass",
                depth=8,
            ),
        ),
        witnesses=(INTERLEAVINGS,),
    ),
    Mutation(
        name="believe what was sent",
        breaks="the event of a create alone in its group shows a row that a trigger has changed",
        guarantee="G3",
        changes=(
            change(
                "database/row_with_entry.py",
                'own["digest"] = case((is_as_given, own["digest"]))',
                'own["digest"] = case((is_as_given, own["digest"]), else_=own["digest"])',
                depth=4,
            ),
        ),
        witnesses=(
            "integration/test_single_statement.py::"
            "test_the_event_shows_the_row_as_a_trigger_left_it",
        ),
    ),
    Mutation(
        name="requeue for ever",
        breaks="a command that keeps failing is tried without end",
        guarantee="G5",
        changes=(
            change(
                "processing/failures.py",
                "if kind is FaultKind.PERMANENT or job.failures >= self._max_attempts:",
                "if kind is FaultKind.PERMANENT:",
                depth=8,
            ),
        ),
        witnesses=("unit/test_processor.py::test_attempts_are_counted_and_end_in_a_dead_letter",),
    ),
    Mutation(
        name="a group fails as one",
        breaks="a command that fails takes its innocent neighbours along",
        guarantee="G5",
        changes=(
            change(
                "processing/processor.py",
                """
                if len(jobs) == 1:
                    return [await self._failures.outcome(jobs[0], fault, kind)]
                """,
                "return [await self._failures.outcome(each, fault, kind) for each in jobs]",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_processor.py::test_a_bad_command_is_found_and_its_neighbours_are_done",
            INTERLEAVINGS,
        ),
    ),
    Mutation(
        name="an outage counts as a failure",
        breaks="commands are dead-lettered while the database is away",
        guarantee="G6",
        changes=(
            change(
                "processing/fault_kinds.py",
                "return FaultKind.TRANSIENT if code else FaultKind.OUTAGE",
                "return FaultKind.TRANSIENT",
                depth=4,
            ),
        ),
        witnesses=("unit/test_fault_kinds.py::test_a_fault_is_known_by_its_sqlstate",),
    ),
    Mutation(
        name="a lane that ends in silence",
        breaks="commands of a lane that has ended are never answered, and readiness is silent",
        guarantee="G1",
        changes=(
            change(
                "core/tasks.py",
                'raise Ended(f"{future!r} was cancelled")',
                "return None",
                depth=8,
            ),
        ),
        witnesses=("unit/test_lanes.py::test_a_lane_whose_task_ends_ends_all_and_says_why",),
    ),
    Mutation(
        name="an outage believed without asking",
        breaks="a handler whose own call is refused stops its lane until that call goes well",
        guarantee="G5",
        changes=(
            change(
                "processing/processor.py",
                "return is_of_connecting(fault) or not await self._is_up(fault)",
                "return True",
                depth=8,
            ),
        ),
        witnesses=("unit/test_processor.py::test_an_outage_is_one_only_if_the_database_says_so",),
    ),
    Mutation(
        name="let a frozen worker keep its locks",
        breaks="commands that wait for a worker that froze in a statement are dead-lettered",
        guarantee="G5",
        changes=(
            change(
                "processing/processor.py",
                "if sqlstate(fault) == LOCK_TIMEOUT:",
                "if False:",
                depth=8,
            ),
        ),
        witnesses=(
            "integration/test_locks.py::test_its_session_is_ended_and_the_command_carried_out",
        ),
    ),
    Mutation(
        name="wait for a lock in every half",
        breaks="neighbours of a command whose row is locked wait for it once for each halving",
        guarantee="G5",
        changes=(
            change(
                "processing/processor.py",
                "briefly = bool(waited) or (course.met_a_lock and len(ready) > 1)",
                "briefly = False",
                depth=16,
            ),
        ),
        witnesses=(
            "integration/test_locks.py::test_neighbours_wait_but_briefly_for_a_row_that_is_locked",
        ),
    ),
    Mutation(
        name="leak a connection",
        breaks="a transaction that fails keeps its connection, and its locks",
        guarantee="G8",
        changes=(
            change(
                "processing/processor.py",
                _TRANSACTION,
                """
                session = self._sessions()
                self._leaked = [*getattr(self, "_leaked", ()), session]
                transaction = Transaction(
                    session, self._registry, self._outcomes, self._limits
                )
                outcomes = await transaction.run(jobs)
                await session.commit()
                return outcomes
                """,
                depth=8,
            ),
        ),
        witnesses=(
            "integration/test_faults.py::test_a_transaction_that_fails_gives_its_connection_back",
        ),
    ),
    Mutation(
        name="leak a place in the pool",
        breaks="each connection that cannot be opened makes the pool smaller",
        guarantee="G8",
        changes=(
            change(
                "database/pool/pool.py",
                "except BaseException as error:\n    self._gate.leave()\n",
                "except BaseException as error:\n",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_pool.py::test_a_connection_that_cannot_be_opened_gives_its_place_back",
        ),
    ),
    Mutation(
        name="leave removed objects removed",
        breaks="an exchange or binding that somebody removed is looked for, and never made again",
        guarantee="G1",
        changes=(
            change(
                "broker/topology_watch.py",
                "await declaration.declare(in_use=True)",
                "self._missing = set()",
                depth=20,
            ),
        ),
        witnesses=(
            "unit/test_topology_watch.py::test_what_goes_again_is_counted_again",
            "integration/test_removed_objects.py::test_what_is_removed_comes_back",
        ),
    ),
    Mutation(
        name="make a consumed queue again at once",
        breaks="consumers of a deleted queue are told nothing, and commands go to nobody",
        guarantee="G1",
        changes=(
            change(
                "broker/topology_watch.py",
                "await declaration.declare(in_use=True)",
                "await declaration.declare(in_use=False)",
                depth=20,
            ),
        ),
        witnesses=("unit/test_topology_watch.py::test_what_goes_again_is_counted_again",),
    ),
    Mutation(
        name="bind past the partitions of others",
        breaks="a worker with one queue undoes that others share commands out, and their order",
        guarantee="G4",
        changes=(
            change(
                "broker/topology_watch.py",
                "if consumers != self._consumers:",
                "if self._consumers is None:",
                depth=8,
            ),
        ),
        witnesses=(
            "integration/test_removed_objects.py"
            "::test_who_has_one_queue_leaves_the_partitions_of_others_alone",
        ),
    ),
)
