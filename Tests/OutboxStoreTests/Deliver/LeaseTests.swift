import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct LeaseTests {
  @Test func expiredLeaseFencesEveryStepButCanBeRenewed() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(4)
      let cut = try #require(try await worker.cut(events: 2))
      try await worker.client.publish(2)
      try await worker.expire()
      let fenced: [@Sendable () async throws -> Void] = [
        { _ = try await worker.cut() },
        { _ = try await worker.claim([endpoint]) },
        { try await worker.record(cut.outcomes()) },
        { _ = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: []) } },
      ]
      for step in fenced {
        await #expect { try await step() } throws: { ($0 as? PostgresError)?.sqlState == OutboxState.leaseExpired }
      }
      #expect(try await worker.client.store { try $0.heartbeat(dispatcher: worker.id, lease: .seconds(60)) })
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.batch") == 0)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.attempt") == 2)
    }
  }

  @Test func recoveredDispatcherIsFencedForEver() async throws {
    try await withDatabase { database in
      let (dead, heir) = (try await Worker(database), try await Worker(database))
      let endpoint = try await dead.client.addEndpoint()
      try await dead.client.publish(3)
      let cut = try #require(try await dead.cut())
      try await dead.expire()
      let recovered = try await heir.client.store { try $0.recover() }
      #expect(recovered.map(\.dispatcher) == [dead.id])
      #expect(recovered.map(\.deliveries) == [3])
      #expect(try await dead.client.store { try $0.heartbeat(dispatcher: dead.id, lease: .seconds(60)) } == false)
      await #expect {
        try await dead.record(cut.outcomes(), finished: [cut.batch!])
      } throws: {
        ($0 as? PostgresError)?.sqlState == OutboxState.leaseLost
      }
      #expect(try await dead.client.int("SELECT count(*) FROM outbox.attempt WHERE outcome <> 'unknown'") == 0)
      #expect(Set(try await heir.claim([endpoint]).map(\.event.number)) == [1, 2, 3])
    }
  }

  @Test func twoRecoverersTakeOverOnce() async throws {
    try await withDatabase { database in
      let dead = try await Worker(database)
      try await dead.client.addEndpoint()
      try await dead.client.publish(50)
      _ = try await dead.cut()
      try await dead.expire()
      let (first, second) = (database.client(), database.client())
      try await first.execute("BEGIN")
      #expect(try await first.int("SELECT deliveries FROM outbox.recover()") == 50)
      #expect(try await second.rows("SELECT * FROM outbox.recover()").isEmpty)
      try await first.execute("COMMIT")
      #expect(try await second.rows("SELECT * FROM outbox.recover()").isEmpty)
      #expect(try await second.int("SELECT count(*) FROM outbox.delivery WHERE dispatcher_id IS NULL") == 50)
    }
  }

  @Test func recoverySkipsADispatcherInTheMiddleOfAStep() async throws {
    try await withDatabase { database in
      let (slow, other) = (try await Worker(database), database.client())
      try await slow.client.addEndpoint()
      try await slow.client.publish(2)
      try await slow.client.execute("BEGIN")
      let cut = try #require(try await slow.cut())
      try await slow.client.execute("COMMIT; BEGIN")
      try await slow.record(cut.outcomes(), finished: [cut.batch!])
      try await other.execute("UPDATE outbox.dispatcher SET expires_at = '-infinity'")
      #expect(try await other.rows("SELECT * FROM outbox.recover()").isEmpty)
      try await slow.client.execute("COMMIT")
      #expect(try await other.int("SELECT deliveries FROM outbox.recover()") == 0)
      #expect(try await other.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }

  @Test func heartbeatDuringRecoveryLearnsThatTheLeaseIsGone() async throws {
    try await withDatabase { database in
      let (slow, other) = (try await Worker(database), database.client())
      let pid = try await slow.client.pid()
      try await slow.expire()
      try await other.execute("BEGIN; SELECT outbox.recover()")
      async let renewed = slow.client.store { try $0.heartbeat(dispatcher: slow.id, lease: .seconds(60)) }
      try await database.untilBlocked(pid)
      try await other.execute("COMMIT")
      #expect(try await renewed == false)
    }
  }

  @Test func recoveryReturnsOnlyWhatHasNoOutcome() async throws {
    try await withDatabase { database in
      let (dead, heir) = (try await Worker(database), try await Worker(database))
      let endpoint = try await dead.client.addEndpoint()
      try await dead.client.publish(10)
      let cut = try #require(try await dead.cut(direct: 6))
      var outcomes = Array(cut.outcomes().prefix(4))
      outcomes[3].kind = .failed
      outcomes[3].retryIn = .zero
      try await dead.record(outcomes)
      #expect(try await dead.claim([endpoint], slots: 2).count == 2)
      try await dead.expire()
      // 2 of the batch without an outcome, 2 claimed; those that were parked or had failed wait already.
      #expect(try await heir.client.store { try $0.recover() }.map(\.deliveries) == [4])
      #expect(try await heir.client.int("SELECT count(*) FROM outbox.batch") == 0)
      let numbers = try await heir.claim([endpoint]).map(\.event.number)
      #expect(numbers.sorted() == Array(4...10))
    }
  }

  @Test func releaseGivesBackAndEndsTheLease() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(5)
      _ = try await worker.cut(direct: 3)
      #expect(try await worker.client.store { try $0.release(dispatcher: worker.id) } == 3)
      #expect(
        try await worker.client.int("SELECT count(*) FROM outbox.delivery WHERE due_at <= clock_timestamp()") == 5
      )
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dispatcher") == 0)
    }
  }

  /// An outcome was recorded, the crash took the record back, and the dispatcher holds the rest of the batch.
  @Test func anOutcomeThatACrashTookBackIsTriedAgainThoughItsBatchGoesOn() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(3)
      let cut = try #require(try await worker.cut())
      let outcomes = cut.outcomes()
      try await worker.record([outcomes[0]])
      // What a crash does: the record is gone, and so is every witness.
      try await worker.client.execute("DELETE FROM outbox.attempt; TRUNCATE outbox.witness")
      let rest = Array(outcomes.dropFirst())
      await #expect { try await worker.record(rest, finished: [cut.batch!]) } throws: {
        ($0 as? PostgresError)?.sqlState == OutboxState.mustResync
      }
      let held = rest.map(\.delivery)
      #expect(try await worker.client.store { try $0.resync(dispatcher: worker.id, held: held) } == 1)
      try await worker.record(rest, finished: [cut.batch!])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.batch") == 0)
      #expect(try await worker.claim([endpoint]).map(\.pair) == [outcomes[0].delivery])
    }
  }

  /// One of its deliveries was recorded, and has been claimed since; the other is given back: nobody would ever end the
  /// batch.
  @Test func batchOfWhichNothingIsOpenDoesNotOutliveAResync() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      let cut = try #require(try await worker.cut())
      try await worker.record([cut.outcomes(.failed)[0]])
      let held = try await worker.claim([endpoint]).map(\.pair)
      #expect(held == [cut.pairs[0]])
      #expect(try await worker.client.store { try $0.resync(dispatcher: worker.id, held: held) } == 1)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.batch") == 0)
    }
  }

  @Test func resyncGivesBackWhatTheDispatcherNeverHeardOf() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(4)
      let known = try #require(try await worker.cut(events: 2))
      _ = try await worker.cut(events: 1)
      _ = try await worker.cut(direct: 0)
      let claimed = try await worker.claim([endpoint])
      #expect(claimed.count == 1)
      let held = known.outcomes().map(\.delivery) + claimed.map(\.pair)
      #expect(try await worker.client.store { try $0.resync(dispatcher: worker.id, held: held) } == 1)
      let all = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: []) }
      #expect(all == 3)
      #expect(try await worker.claim([endpoint]).count == 4)
    }
  }
}

/// What simulations have found; see docs/simulation.md.
@Suite struct LateStepTests {
  /// A step was on its way when the connection broke, and arrives after the dispatcher has given it up and resynced.
  @Test func stepThatArrivesAfterAResyncIsRefused() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(4)
      let cut = try #require(try await worker.cut(events: 2, direct: 1))
      _ = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: cut.pairs, number: 2) }
      let late: [@Sendable (OutboxStore) throws -> Void] = [
        { _ = try $0.resync(dispatcher: worker.id, held: [], number: 1) },
        {
          _ = try $0.cut(
            dispatcher: worker.id,
            events: 10,
            direct: 10,
            perEndpoint: 10,
            bytes: 1 << 20,
            busy: [],
            slots: [],
            resyncs: 1
          )
        },
        { _ = try $0.claim(dispatcher: worker.id, endpoints: [endpoint], slots: [10], floors: [nil], resyncs: 1) },
        { _ = try $0.record(dispatcher: worker.id, cut.outcomes(), finishedBatches: [], again: false, resyncs: 1) },
      ]
      for step in late {
        await #expect { try await worker.client.store { try step($0) } } throws: {
          ($0 as? PostgresError)?.sqlState == OutboxState.mustResync
        }
      }
      _ = try await worker.client.store {
        try $0.record(dispatcher: worker.id, cut.outcomes(), finishedBatches: [cut.batch!], again: false, resyncs: 2)
      }
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.batch") == 0)
    }
  }

  /// Who neither cuts, claims nor records must hear of a crash all the same: what that took back may be in its hands.
  @Test func dispatcherWithNothingToDoIsToldOfACrash() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      _ = try await worker.client.store { try $0.recover(caller: worker.id) }
      try await worker.client.execute("TRUNCATE outbox.witness")
      await #expect {
        _ = try await worker.client.store { try $0.recover(caller: worker.id) }
      } throws: {
        ($0 as? PostgresError)?.sqlState == OutboxState.mustResync
      }
      _ = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: []) }
      _ = try await worker.client.store { try $0.recover(caller: worker.id) }
    }
  }
}
