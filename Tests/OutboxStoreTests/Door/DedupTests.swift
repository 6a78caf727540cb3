import Foundation
import OutboxStore
import Postgres
import Testing

/// `outbox.publish(…, dedup_key)`: once per key and tenant, whoever asks and however often.
@Suite struct DedupTests {
  @Test func secondPublishGetsTheFirstEventsIDAndInsertsNothing() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      let first = try await client.publishOnce("a", n: 1)
      #expect(try await client.publishOnce("a", n: 2) == first)
      #expect(try await client.publishOnce("b", n: 3) != first)
      #expect(try await client.publishOnce("a", n: 4, tenant: "acme") != first, "a tenant's keys are its own")
      #expect(try await client.publishOnce(nil, n: 5) != first)
      #expect(try await client.publishOnce(nil, n: 6) != first)
      #expect(
        try await client.column("SELECT payload ->> 'n' FROM outbox.event ORDER BY id") == ["1", "3", "4", "5", "6"]
      )
      #expect(try await worker.cut()?.direct.map(\.event.number) == [1, 3, 5, 6])
      let same = try await client.rows(
        "SELECT created_at - outbox.uuid_time(id) < '1 s', id::text ~ '^.{14}7' FROM outbox.event WHERE payload ->> 'n' = '1'"
      )
      #expect(same == [["t", "t"]])
    }
  }

  @Test func twiceInOneTransactionAndInOneStatementIsOnce() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.execute("BEGIN")
      let first = try await client.publishOnce("a")
      #expect(try await client.publishOnce("a") == first)
      try await client.execute("COMMIT")
      let ids = try await client.column("SELECT outbox.publish('t', '1', dedup_key => 'b') FROM generate_series(1, 10)")
      #expect(Set(ids).count == 1)
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 2)
    }
  }

  @Test func duplicateWaitsForTheFirstAndGetsTheCommittedID() async throws {
    try await withDatabase { database in
      let (one, two) = (database.client(), database.client())
      let pid = try await two.pid()
      try await one.execute("BEGIN")
      let first = try await one.publishOnce("a")
      try await two.execute("BEGIN")
      async let second = two.publishOnce("a")
      try await database.untilBlocked(pid)
      try await one.execute("COMMIT")
      #expect(try await second == first)
      // It sees the event, whose id it was given.
      #expect(try await two.value("SELECT id FROM outbox.event") == first)
      try await two.execute("COMMIT")
      #expect(try await two.int("SELECT count(*) FROM outbox.event") == 1)
    }
  }

  @Test func duplicateOfWhatIsRolledBackPublishes() async throws {
    try await withDatabase { database in
      let (one, two) = (database.client(), database.client())
      let pid = try await two.pid()
      try await one.execute("BEGIN")
      let first = try await one.publishOnce("a", n: 1)
      async let second = two.publishOnce("a", n: 2)
      try await database.untilBlocked(pid)
      try await one.execute("ROLLBACK")
      let id = try await second
      #expect(id != first)
      #expect(try await one.rows("SELECT id, payload ->> 'n' FROM outbox.event") == [[id, "2"]])
      #expect(try await one.publishOnce("a") == id)
    }
  }

  @Test func savepointThatIsRolledBackFreesTheKey() async throws {
    try await withDatabase { database in
      let (one, two) = (database.client(), database.client())
      let pid = try await two.pid()
      try await one.execute("BEGIN; SAVEPOINT s")
      let first = try await one.publishOnce("a", n: 1)
      async let second = two.publishOnce("a", n: 2)
      try await database.untilBlocked(pid)
      try await one.execute("ROLLBACK TO s")
      let id = try await second
      #expect(id != first)
      #expect(try await one.publishOnce("a", n: 3) == id)
      try await one.execute("COMMIT")
      #expect(try await one.column("SELECT payload ->> 'n' FROM outbox.event") == ["2"])
      // And one that is released keeps it.
      try await one.execute("BEGIN; SAVEPOINT s")
      let kept = try await one.publishOnce("b")
      try await one.execute("RELEASE s; COMMIT")
      #expect(try await two.publishOnce("b") == kept)
    }
  }

  @Test(arguments: ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
  func manyClientsThatHammerOneKeyPublishOneEvent(isolation: String) async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      let ids = try await withThrowingTaskGroup(of: [Int: Set<String>].self) { group in
        for number in 0..<12 {
          group.addTask {
            var generator = SeededGenerator(seed &+ UInt64(number))
            let client = database.client()
            var seen: [Int: Set<String>] = [:]
            for round in 0..<25 {
              let rollsBack = Int.random(in: 0..<4, using: &generator) == 0
              // As such transactions must: again, until it goes through.
              while true {
                do {
                  try await client.execute("BEGIN ISOLATION LEVEL \(isolation); SELECT 1 FROM pg_class LIMIT 1")
                  let id = try await client.publishOnce("key \(round)")
                  let isVisible = try await client.value("SELECT count(*) FROM outbox.event WHERE id = '\(id ?? "")'")
                  #expect(isVisible == "1", "an id that was returned is of an event that this transaction sees")
                  try await client.execute(rollsBack ? "ROLLBACK" : "COMMIT")
                  if !rollsBack { seen[round, default: []].insert(id ?? "") }
                  break
                } catch let error as PostgresError where error.sqlState == "40001" && isolation != "READ COMMITTED" {
                  try await client.execute("ROLLBACK")
                }
              }
            }
            return seen
          }
        }
        return try await group.reduce(into: [:]) { $0.merge($1) { $0.union($1) } }
      }
      #expect(ids.values.allSatisfy { $0.count == 1 })
      let committed = try await database.client().column("SELECT id FROM outbox.event")
      #expect(Set(committed) == ids.values.reduce(into: []) { $0.formUnion($1) } && committed.count == ids.count)
    }
  }

  /// A snapshot from before the other's commit cannot show its event, so there is no honest id to return.
  @Test(arguments: ["REPEATABLE READ", "SERIALIZABLE"])
  func oldSnapshotFailsAsASerializationFailureAndSucceedsAgain(isolation: String) async throws {
    try await withDatabase { database in
      let (one, two) = (database.client(), database.client())
      try await two.execute("BEGIN ISOLATION LEVEL \(isolation)")
      #expect(try await two.int("SELECT count(*) FROM outbox.event") == 0)
      let first = try await one.publishOnce("a")
      #expect(try await two.refusal("SELECT outbox.publish('t', '1', dedup_key => 'a')").sqlState == "40001")
      try await two.execute("ROLLBACK")
      try await two.execute("BEGIN ISOLATION LEVEL \(isolation)")
      #expect(try await two.publishOnce("a") == first)
      try await two.execute("COMMIT")
      #expect(try await two.int("SELECT count(*) FROM outbox.event") == 1)
    }
  }

  @Test func afterTheWindowItPublishesAnew() async throws {
    try await withDatabase { database in
      let client = database.client()
      let first = try await client.publishOnce("a")
      // The window counts from the first publish, and is that one's.
      #expect(
        try await client.value("SELECT outbox.publish('t', '1', dedup_key => 'a', dedup_window => '1 us')") == first
      )
      let left = "SELECT expires_at - now() BETWEEN '23 h 59 min' AND '24 h' FROM outbox.dedup"
      #expect(try await client.value(left) == "t")
      try await client.execute("UPDATE outbox.dedup SET expires_at = clock_timestamp()")
      let second = try await client.publishOnce("a")
      #expect(second != first)
      #expect(try await client.publishOnce("a") == second)
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 2)
      #expect(try await client.int("SELECT count(*) FROM outbox.dedup") == 1)
    }
  }

  @Test func expiredKeyIsRenewedByOneOfTwo() async throws {
    try await withDatabase { database in
      let (one, two) = (database.client(), database.client())
      let old = try await one.publishOnce("a")
      try await one.execute("UPDATE outbox.dedup SET expires_at = clock_timestamp()")
      let pid = try await two.pid()
      try await one.execute("BEGIN")
      let first = try await one.publishOnce("a")
      async let second = two.publishOnce("a")
      try await database.untilBlocked(pid)
      try await one.execute("COMMIT")
      #expect(try await second == first && first != old)
    }
  }

  @Test func maintenanceRemovesExpiredKeysAndLeavesThoseInUse() async throws {
    try await withDatabase { database in
      let (client, holder) = (database.client(), database.client())
      for key in ["live", "old", "renewed"] { _ = try await client.publishOnce(key) }
      try await client.execute("UPDATE outbox.dedup SET expires_at = clock_timestamp() WHERE key <> 'live'")
      try await holder.execute("BEGIN")
      _ = try await holder.publishOnce("renewed")
      #expect(try await client.store { try $0.maintain() } == ["deleted 1 expired deduplication keys"])
      try await holder.execute("COMMIT")
      #expect(try await client.store { try $0.maintain() } == [])
      #expect(try await client.column("SELECT key FROM outbox.dedup ORDER BY 1") == ["live", "renewed"])
    }
  }

  /// Maintenance that removes a key just when it is asked for loses nothing: it has expired.
  @Test func keyThatIsRemovedMeanwhileIsPublishedAnew() async throws {
    try await withDatabase { database in
      let (client, remover) = (database.client(), database.client())
      let first = try await client.publishOnce("a")
      try await client.execute("UPDATE outbox.dedup SET expires_at = clock_timestamp()")
      let pid = try await client.pid()
      try await remover.execute("BEGIN")
      _ = try await remover.store { try $0.maintain() }
      async let second = client.publishOnce("a")
      try await database.untilBlocked(pid)
      try await remover.execute("COMMIT")
      #expect(try await second != first)
      #expect(try await client.int("SELECT count(*) FROM outbox.dedup") == 1)
    }
  }

  @Test func badKeysAndWindowsAreRefusedWithTheReason() async throws {
    try await withDatabase { database in
      let client = database.client()
      for (arguments, words) in [
        ("dedup_key => ''", "1 to 1024 bytes, not 0"), ("dedup_key => repeat('ä', 513)", "1 to 1024 bytes, not 1026"),
        ("dedup_key => 'a', dedup_window => '0'", "more than 0 and at most 30 days, not 00:00:00"),
        ("dedup_key => 'a', dedup_window => '-1 s'", "more than 0"),
        ("dedup_key => 'a', dedup_window => '31 days'", "at most 30 days, not 31 days"),
        ("dedup_key => 'a', dedup_window => NULL", "not null"),
        ("dedup_key => 'a', tenant => repeat('x', 256)", "at most 255 bytes"),
      ] {
        let error = try await client.refusal("SELECT outbox.publish('t', '1', \(arguments))")
        #expect(error.sqlState == "23514" && error.message.contains(words), "\(arguments): \(error)")
      }
      // What the log refuses leaves the key free.
      _ = try await client.refusal("SELECT outbox.publish('not a type', '1', dedup_key => 'a')")
      _ = try await client.publishOnce("a")
      #expect(try await client.publishOnce(String(repeating: "k", count: 1024)) != nil)
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 2)
    }
  }

  /// Like a plain insert, to the byte.
  @Test func withoutAKeyItWritesWhatAnInsertWrites() async throws {
    try await withOwnServer(["wal_level": "minimal", "max_wal_senders": "0", "full_page_writes": "off"]) { database in
      let client = database.client()
      try await client.publish(10)
      func bytes(_ statement: String) async throws -> Int {
        let plan = try await client.column("EXPLAIN (ANALYZE, WAL, COSTS OFF, TIMING OFF) \(statement)").joined()
        return plan.matches(of: /WAL: .*?bytes=(\d+)/).compactMap { Int($0.1) }.max() ?? 0
      }
      let plain = try await bytes(
        "INSERT INTO outbox.event (type, payload) SELECT 't', '{\"n\": 1}' FROM generate_series(1, 1000)"
      )
      let published = try await bytes("SELECT outbox.publish('t', '{\"n\": 1}') FROM generate_series(1, 1000)")
      print("WAL of 1000 events: inserted \(plain), published \(published)")
      #expect(abs(published - plain) < plain / 20)
    }
  }
}

extension Client {
  fileprivate func publishOnce(_ key: String?, n: Int = 1, tenant: String = "") async throws -> String? {
    try await value(
      "SELECT outbox.publish('t', $1, tenant => $2, dedup_key => $3)",
      [.jsonb("{\"n\": \(n)}"), .text(tenant), .text(key)]
    )
  }
}
