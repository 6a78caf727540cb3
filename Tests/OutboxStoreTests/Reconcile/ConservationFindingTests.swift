import Foundation
import OutboxStore
import Postgres
import Testing

/// Each thing that can go wrong with deliveries is found, and the remedy that is printed mends it.
@Suite struct ConservationFindingTests {
  @Test func healthyDatabaseGivesOneRow() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      let cut = try #require(try await worker.cut(direct: 2))
      try await worker.record(cut.outcomes().dropLast(), finished: [])
      let found = try await worker.client.findings()
      #expect(found.map(\.severity) == ["ok"])
      #expect(found[0].finding == "conservation" && found[0].subject.hasPrefix("3 events created from "))
      #expect(
        found[0].detail.hasPrefix(
          "3 deliveries = 1 delivered + 1 waiting + 1 in flight + 0 dead; 0 missing; the proof begins "
        )
      )
    }
  }

  @Test func deletedDeliveryIsFoundAndMended() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      _ = try await worker.cut(direct: 0)
      let event = try await worker.client.value(
        "DELETE FROM outbox.delivery WHERE seq = (SELECT max(seq) FROM outbox.delivery) RETURNING event_id"
      )!
      let all = try await worker.client.findings()
      #expect(all.map(\.severity) == ["critical", "critical"])
      #expect(
        all[0].finding == "conservation" && all[0].detail.contains(" + 2 waiting + 0 in flight + 0 dead + 1 MISSING")
      )
      let found = all[1]
      #expect(found.finding == "missing deliveries" && found.subject == "event \(event), endpoint 1")
      try await worker.client.execute(found.statements[0])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      #expect(try await worker.claim([1]).map(\.event.number).sorted() == [1, 2, 3])
    }
  }

  /// Deleted by hand: one that waits, one with history only, one of an ordered key; the rest is left alone.
  @Test func repairSendsWhatIsMissingAndNothingElse() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      let ordered = try await worker.client.addEndpoint("ordered => true")
      try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, key, payload) SELECT 't', 'k', jsonb_build_object('n', i) FROM generate_series(4, 7) i"
      )
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      let gone = try await worker.client.column(
        """
        WITH waiting AS (
          DELETE FROM outbox.delivery WHERE endpoint_id = \(ordered)
            AND seq = (SELECT min(seq) FROM outbox.delivery WHERE endpoint_id = \(ordered)) RETURNING event_id, endpoint_id
        ), history AS (
          DELETE FROM outbox.attempt WHERE (event_id, endpoint_id) = ('\(cut.pairs[0].event)', \(cut.pairs[0].endpoint))
          RETURNING event_id, endpoint_id
        ) SELECT event_id || '/' || endpoint_id FROM (TABLE waiting UNION ALL TABLE history) x ORDER BY 1
        """
      )
      #expect(gone.count == 2)
      let before = try await worker.client.int("SELECT count(*) FROM outbox.delivery")
      let repaired = "SELECT event_id || '/' || endpoint_id FROM outbox.repair() ORDER BY 1"
      #expect(try await worker.client.column(repaired) == gone)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == before + 2)
      #expect(try await worker.client.column(repaired) == [])
      #expect(try await worker.client.findings().filter { $0.finding == "missing deliveries" }.isEmpty)
    }
  }

  @Test func deletedHistoryIsFoundAndMended() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      try await worker.client.execute("DELETE FROM outbox.attempt WHERE event_id = '\(cut.pairs[0].event)'")
      let found = try await worker.client.findings()[1]
      #expect(
        found.finding == "missing deliveries" && found.subject.contains(cut.pairs[0].event.uuidString.lowercased())
      )
      try await worker.client.execute(found.statements[0])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  @Test func manyMissingAreNamedUpToAHundred() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      try await worker.client.publish(147)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute("DELETE FROM outbox.delivery")
      let found = try await worker.client.findings()
      #expect(found.count == 102 && found[101].subject == "50 more")
      #expect(!found.contains { $0.severity == "ok" })
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.repair()") == 150)
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  /// What was published before an endpoint was there is not missing there.
  @Test func newEndpointMissesNothing() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      _ = try await worker.cut()
      try await worker.client.addEndpoint()
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  /// The event is gone as well, which only the owner of the schema can bring about: it says that nothing can be sent.
  @Test func missingDeliveryOfADeletedEventIsNamedButCannotBeSent() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      _ = try await worker.cut(direct: 0)
      #expect(try await worker.client.proveAll() == 1)
      try await worker.client.execute(
        """
        WITH gone AS (DELETE FROM outbox.delivery WHERE seq = 1 RETURNING event_id)
        DELETE FROM outbox.event e USING gone WHERE e.id = gone.event_id
        """
      )
      try await worker.client.store { try $0.proveAgain(try $0.period(since: "1 hour")) }
      let found = try await worker.client.findings()
      #expect(found.map(\.severity) == ["critical", "critical"] && found[1].detail.contains("cannot be sent"))
      #expect(try await worker.client.rows(found[1].statements[0]).isEmpty)
    }
  }

  @Test func expiredLeaseAndItsEnd() async throws {
    try await withDatabase { database in
      let (dead, live) = (try await prepared(database), try await Worker(database))
      _ = try await dead.cut(direct: 2)
      try await dead.client.execute(
        "UPDATE outbox.dispatcher SET expires_at = now() - interval '1 min' WHERE id = \(dead.id)"
      )
      let found = try await live.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "expired lease")
      #expect(found.subject.contains("dispatcher \(dead.id)") && found.detail.contains("the 2 deliveries"))
      try await live.client.execute(found.statements[0])
      #expect(try await live.client.findings().map(\.severity) == ["ok"])
      #expect(try await live.claim([1]).count == 3)
    }
  }

  @Test func orphanedDeliveriesAreFoundAndReleased() async throws {
    try await withDatabase { database in
      let (dead, live) = (try await prepared(database), try await Worker(database))
      _ = try await dead.cut(direct: 1)
      #expect(try await dead.claim([1], slots: 1).count == 1)
      try await dead.client.execute("DELETE FROM outbox.dispatcher WHERE id = \(dead.id)")
      let found = try await live.client.onlyFinding()
      #expect(found.severity == "critical" && found.finding == "orphaned deliveries")
      #expect(found.subject == "dispatcher \(dead.id)" && found.detail.hasPrefix("2 deliveries"))
      try await live.client.execute(found.statements[0])
      #expect(try await live.client.findings().map(\.severity) == ["ok"])
      #expect(try await live.claim([1]).count == 3)
    }
  }

  @Test func overdueDeliveriesAreFound() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute("UPDATE outbox.delivery SET due_at = due_at - interval '10 min'")
      let found = try await worker.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "overdue deliveries" && found.detail.hasPrefix("3 "))
      #expect(try await worker.client.rows(found.statements[0]).count == 3)
    }
  }

  @Test func sleepingKeyIsFoundAndWoken() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("ordered => true")
      try await worker.client.publish(3, key: "k \"")
      _ = try await worker.cut()
      try await worker.client.execute("DELETE FROM outbox.delivery WHERE ready")
      let found = try await worker.client.onlyFinding()
      #expect(
        found.severity == "critical" && found.finding == "sleeping key" && found.subject == "endpoint 1, key k \""
      )
      try await worker.client.execute(found.statements[0])
      #expect(try await worker.claim([endpoint]).map(\.event.number) == [2])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  /// A live dispatcher, an endpoint whose subscription is provable, and three events.
  private func prepared(_ database: Database) async throws -> Worker {
    let worker = try await Worker(database)
    try await worker.client.addEndpoint()
    try await worker.client.store { try $0.stampSubscriptions() }
    try await worker.client.publish(3)
    return worker
  }

  /// Its subscription ended; what it was owed before is proved all the same, also when it is enabled again.
  @Test func deliveriesOfADisabledEndpointAreProvedToo() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
      try await worker.client.publish(3)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute("SELECT outbox.publish('a', '1')")
      _ = try await worker.cut(direct: 0)
      func missing() async throws -> Int {
        try await worker.client.int("SELECT missing FROM outbox.conservation(now() - interval '1 h')")
      }
      try await worker.client.execute("SELECT outbox.disable(\(endpoint))")
      try await worker.client.execute("SELECT outbox.publish('a', '2')")
      _ = try await worker.cut(direct: 0)
      #expect(try await missing() == 0)
      try await worker.client.execute("DELETE FROM outbox.delivery WHERE seq = 1")
      #expect(try await missing() == 1)
      try await worker.client.execute("SELECT outbox.resume(\(endpoint))")
      #expect(try await missing() == 1)
    }
  }

  @Test func anEndpointThatA410DisabledIsNamedUntilSomebodyDecides() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes()
      outcomes[0].kind = .failed
      outcomes[0].reason = "gone"
      try await worker.record(outcomes, finished: [cut.batch!])
      try await worker.client.execute("SELECT outbox.discard(id) FROM outbox.dead_letter")
      let found = try await worker.client.findings().filter { $0.finding == "endpoint disabled by itself" }
      #expect(found.count == 1 && found[0].detail.contains("410"))
      try await worker.client.execute("SELECT outbox.disable(\(endpoint))")
      #expect(try await worker.client.findings().allSatisfy { $0.finding != "endpoint disabled by itself" })
    }
  }
}
