import Foundation
import OutboxStore
import Postgres
import Testing

/// Who may cut, and when.
@Suite struct CutterTests {
  @Test func secondCutterComesBackLater() async throws {
    try await withDatabase { database in
      let (first, second) = (try await Worker(database), try await Worker(database))
      try await first.client.addEndpoint()
      try await first.client.publish(3)
      try await first.client.execute("BEGIN")
      #expect(try await first.cut(events: 2)?.events == 2)
      #expect(try await second.cut() == nil)
      try await first.client.execute("ROLLBACK")
      #expect(try await second.cut()?.events == 3)
    }
  }

  /// With an old snapshot it would read a stale position and cut events a second time.
  @Test(arguments: ["REPEATABLE READ", "SERIALIZABLE"])
  func cutRefusesAnOldSnapshot(isolation: String) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.publish(3)
      try await worker.client.execute("BEGIN ISOLATION LEVEL \(isolation)")
      await #expect { try await worker.cut() } throws: { ($0 as? PostgresError)?.sqlState == "25001" }
    }
  }

  /// Its own transaction counts as over in its own snapshot, so what it published afterwards would never be cut.
  @Test func cutRefusesATransactionThatHasWritten() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.publish(3)
      try await worker.client.execute("BEGIN; SELECT pg_current_xact_id()")
      await #expect { try await worker.cut() } throws: { ($0 as? PostgresError)?.sqlState == "25001" }
    }
  }

  /// The position must never move back, whatever a caller asks for.
  @Test(arguments: ["0", "-1", "NULL"]) func cutOfNothingLeavesThePositionAlone(limit: String) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(10)
      #expect(try await worker.cut(events: 4)?.events == 4)
      #expect(try await worker.client.rows("SELECT * FROM outbox.cut(\(worker.id), \(limit), 10, 10, 1000000)").isEmpty)
      #expect(try await worker.drain().numbers == Array(5...10))
    }
  }

  @Test func cutNeedsALeaseOnceThereIsSomethingToCut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.expire()
      #expect(try await worker.cut() == nil)
      try await worker.client.publish(1)
      await #expect { try await worker.cut() } throws: { ($0 as? PostgresError)?.sqlState == OutboxState.leaseExpired }
      let other = try await Worker(database)
      #expect(try await other.cut()?.events == 1)
    }
  }

  /// Writers that a row lock puts in order have their events in that order, though the second began first.
  @Test func eventsOfOneKeyAreParkedInTheOrderOfTheirInsertion() async throws {
    try await withDatabase { database in
      let (early, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint("ordered => true")
      try await early.execute("BEGIN; SELECT pg_current_xact_id()")
      try await quick.publish(1, key: "k", from: 1)
      try await early.publish(1, key: "k", from: 2)
      try await early.execute("COMMIT")
      #expect(try await worker.cut()?.parked == 2)
      let order = try await quick.column(
        "SELECT payload ->> 'n' FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id ORDER BY seq"
      )
      #expect(order == ["1", "2"])
    }
  }

  /// A cut that took exactly the rest of its target does not make the next one come back empty-handed.
  @Test func cutAfterAFullOneFindsWhatCameMeanwhile() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(10)
      #expect(try await worker.cut(events: 10)?.more == true)
      try await worker.client.publish(1, from: 11)
      #expect(try await worker.cut(events: 10).map { [$0].numbers } == [11])
    }
  }
}
