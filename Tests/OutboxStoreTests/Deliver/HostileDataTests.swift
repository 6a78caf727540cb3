import Foundation
import OutboxStore
import Postgres
import Testing

/// Data that must not stop a dispatcher.
@Suite struct HostileDataTests {
  /// A few kilobytes of jsonb that are a gigabyte as text.
  @Test func numbersThatUnfoldAreMeasuredAsTheyWouldBeSent() async throws {
    try await withDatabase { database in
      let refusal = try await database.client().refusal(
        "SELECT outbox.publish('a', ('[' || repeat('1e131071,', 50) || '0]')::jsonb)"
      )
      #expect(refusal.sqlState == "23514" && refusal.message.contains("1_mib"))
    }
  }

  @Test func endlessWaitsAreRefusedAtTheDoorAndHarmlessBehindIt() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      let refusal = try await worker.client.refusal("SELECT outbox.publish('a', '1', not_before => 'infinity')")
      #expect(refusal.sqlState == "23514" && refusal.message.contains("finite"))
      try await worker.client.execute("SELECT outbox.publish('a', '1', not_before => '9999-01-01')")
      _ = try await worker.cut()
      try await worker.client.execute("UPDATE outbox.delivery SET due_at = 'infinity'")
      let waiting = try await worker.client.store { try $0.waiting() }
      #expect(waiting.map(\.endpoint) == [endpoint] && waiting[0].dueIn > .seconds(86_400))
    }
  }

  /// Handed out, taken back by a crash, handed out again: the dispatcher holds it twice.
  @Test func aPairThatComesBackTwiceInOneRecordIsTakenOnce() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes() + cut.outcomes()
      for index in outcomes.indices {
        outcomes[index].kind = .failed
        outcomes[index].retryIn = .zero
      }
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await worker.claim([endpoint]).count == 1)
    }
  }

  @Test func aClaimBringsNoMoreThanItMayAndAlwaysOne() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      // Compressible: a tenth of a megabyte each, little of it on disk.
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, payload) SELECT 'a', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 20)"
      )
      _ = try await worker.cut(direct: 0)
      func claim(_ bytes: Int) async throws -> Int {
        try await worker.client.int(
          "SELECT count(*) FROM outbox.claim(\(worker.id), '{\(endpoint)}', '{100}', '{NULL}', \(bytes))"
        )
      }
      #expect(try await claim(1) == 1)
      #expect(try await claim(500_000) == 4)
      #expect(try await claim(100_000_000) == 15)
    }
  }

  @Test func aCutReturnsNoMoreThanItMayHoweverWellItIsCompressed() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, payload) SELECT 'a', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 20)"
      )
      let cut = try #require(try await worker.cut(bytes: 500_000))
      #expect(cut.events == 20 && cut.pairs.count == 4 && cut.parked == 16)
    }
  }

  @Test func aDeliveryWhoseEventIsGoneIsNotClaimed() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute("DELETE FROM outbox.event WHERE payload ->> 'n' = '1'")
      #expect(try await worker.claim([endpoint]).count == 1)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery WHERE dispatcher_id IS NOT NULL") == 1)
    }
  }

  @Test func whatWaitsForADeletedEndpointBecomesADeadLetter() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(3)
      let cut = try #require(try await worker.cut(direct: 1))
      try await worker.client.execute("DELETE FROM outbox.endpoint WHERE id = \(endpoint)")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE reason = 'discarded'") == 2)
      var outcomes = cut.outcomes()
      outcomes[0].kind = .failed
      outcomes[0].retryIn = .zero
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }

  /// Age counts from when a delivery began to wait: what was redriven or scheduled is not old on arrival.
  @Test func ageCountsFromWhenItCouldBeSent() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute(
        "UPDATE outbox.event SET created_at = now() - interval '30 days', not_before = now()"
      )
      #expect(try await worker.claim([endpoint])[0].age < .seconds(600))
    }
  }

  @Test func aProbeThatWasNotSentIsFollowedByAnotherAtOnce() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute(
        """
        INSERT INTO outbox.endpoint_health (endpoint_id, state, consecutive_failures, opened_at, probe_at)
        VALUES (\(endpoint), 'open', 10, now(), now())
        """
      )
      for _ in 0..<2 {
        let probe = try await worker.claim([endpoint])
        #expect(probe.count == 1)
        var outcome = probe[0].outcome()
        outcome.kind = .returned
        outcome.attempt = 0
        outcome.reason = "expired"
        try await worker.record([outcome])
      }
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE reason = 'expired'") == 2)
    }
  }

  @Test func nobodyTakesOverFromHimselfOrRightAfterAStart() async throws {
    try await withDatabase { database in
      let (one, two) = (try await Worker(database), try await Worker(database))
      try await one.expire()
      #expect(try await one.client.store { try $0.recover(caller: one.id) }.isEmpty)
      #expect(try await two.client.store { try $0.recover(caller: two.id, settle: .seconds(864_000)) }.isEmpty)
      #expect(try await two.client.store { try $0.recover(caller: two.id) }.map(\.dispatcher) == [one.id])
    }
  }
}
