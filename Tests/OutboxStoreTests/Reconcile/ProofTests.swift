import Foundation
import OutboxStore
import Postgres
import Testing

/// The ledger of the proof: what was cut is in it exactly once, what is lost is named whatever its age, and nothing else is.
@Suite struct ProofTests {
  /// Waiting when it was proved; deleted days later.
  @Test func deletionInARangeProvedLongAgoIsFoundNamedAndRepaired() async throws {
    try await withDatabase { database in
      let (worker, endpoints) = try await prepared(database)
      let client = worker.client
      try await client.publish(40)
      let cut = try #require(try await worker.cut(direct: 20))
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(try await client.proveAll() == 1)
      try await client.execute(
        """
        UPDATE outbox.proof SET began_at = began_at - interval '3 days', proved_at = proved_at - interval '1 day',
          due_at = clock_timestamp() + interval '1 day' WHERE due_at IS NOT NULL
        """
      )
      let gone = try await client.column(
        """
        DELETE FROM outbox.delivery WHERE seq IN (SELECT seq FROM outbox.delivery ORDER BY seq DESC LIMIT 3)
        RETURNING event_id || '/' || endpoint_id
        """
      ).sorted()
      // Nobody has looked again yet: it says when somebody last did.
      #expect(try await client.books() == [["40", "80", "20", "60", "0", "0", "0", "1", "0"]])
      #expect(
        try await client.value("SELECT as_of < now() - interval '23 hours' FROM outbox.conservation('-infinity')")
          == "t"
      )
      let all = try await client.store { try $0.period(since: "-infinity") }
      try await client.store { try $0.proveAgain(all) }
      #expect(try await client.books() == [["40", "80", "20", "57", "0", "0", "3", "1", "0"]])
      #expect(try await client.missing() == gone)

      let (before, untouched) = (try await waiting(client), Set(gone))
      let repaired = try await client.store { try $0.repair(all) }
      #expect(repaired.map(\.subject).sorted() == gone.map { "event " + $0.replacing("/", with: ", endpoint ") })
      #expect(Set(try await waiting(client)).subtracting(before) == untouched)
      #expect(try await client.store { try $0.repair(all) }.isEmpty)
      #expect(try await client.books() == [["40", "80", "20", "60", "0", "0", "0", "1", "0"]])

      try await deliverAll(worker, endpoints)
      try await client.store { try $0.proveAgain(all) }
      #expect(try await client.books() == [["40", "80", "80", "0", "0", "0", "0", "1", "0"]])
      #expect(
        try await client.int("SELECT count(*) FROM outbox.proof WHERE due_at IS NOT NULL OR open_events IS NOT NULL")
          == 0
      )
    }
  }

  /// Nobody has to ask: the row comes up by itself, each time after as long as it has taken so far, and within a day.
  @Test func openRowsAreLookedAtAgainAtGrowingIntervals() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      try await client.publish(5)
      _ = try await worker.cut(direct: 0)
      #expect(try await client.proveAll() == 1)
      var pauses: [String] = []
      for age in ["0 s", "1 min", "2 min", "4 min", "1 day", "30 days"] {
        try await client.execute(
          "UPDATE outbox.proof SET due_at = clock_timestamp(), began_at = clock_timestamp() - interval '\(age)' WHERE due_at IS NOT NULL"
        )
        #expect(try await client.store { try $0.prove(steps: 1) } == 1)
        pauses += try await client.column(
          "SELECT date_trunc('minute', due_at - proved_at) FROM outbox.proof WHERE due_at IS NOT NULL"
        )
      }
      #expect(pauses == ["00:01:00", "00:01:00", "00:02:00", "00:04:00", "1 day", "1 day"])
      try await client.execute(
        "DELETE FROM outbox.delivery WHERE seq = 1; UPDATE outbox.proof SET due_at = clock_timestamp() WHERE due_at IS NOT NULL"
      )
      #expect(try await client.findings().filter { $0.severity == "critical" }.isEmpty)
      #expect(try await client.store { try $0.prove(steps: 1) } == 1)
      #expect(
        try await client.findings().filter { $0.severity == "critical" }.map(\.finding) == [
          "conservation", "missing deliveries",
        ]
      )
    }
  }

  /// A direct delivery that failed waits, while others of its batch still fly; and the batch itself.
  @Test func deletionInsideTheBatchInFlightIsFound() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      try await client.publish(3)
      let cut = try #require(try await worker.cut())
      try await worker.record([cut.outcomes(.failed)[0]])
      let pair = "\(cut.pairs[0].event.uuidString.lowercased())/\(cut.pairs[0].endpoint)"
      #expect(try await client.missing() == [])
      try await client.execute("DELETE FROM outbox.delivery")
      #expect(try await client.missing() == [pair])
      #expect(try await client.proveAll() == 1)
      #expect(try await client.books() == [["3", "6", "0", "0", "5", "0", "1", "1", "0"]])
      #expect(try await client.column("SELECT event_id || '/' || endpoint_id FROM outbox.repair()") == [pair])
      try await client.execute("DELETE FROM outbox.batch")
      try await client.store { try $0.proveAgain(try $0.period(since: "1 hour")) }
      #expect(try await client.books() == [["3", "6", "0", "1", "0", "0", "5", "1", "0"]])
      #expect(try await client.int("SELECT count(*) FROM outbox.repair()") == 5)
      #expect(try await client.missing() == [])
    }
  }

  /// A transaction that was open while everything around it was proved; and events whose ids a clock set back has made old.
  @Test func lateCommittersAndOldIdsAreProvedWhenTheyAreCut() async throws {
    try await withDatabase { database in
      let ((worker, _), late) = (try await prepared(database), database.client())
      let client = worker.client
      try await late.execute("BEGIN")
      try await late.publish(2, from: 100)
      try await client.publish(10)
      _ = try await worker.drain()
      #expect(try await client.proveAll() == 1)
      try await client.publish(10)
      _ = try await worker.drain()
      #expect(try await client.proveAll() == 1)
      try await client.execute(
        "INSERT INTO outbox.event (id, type, payload) SELECT outbox.uuid_floor(now() - interval '3 days'), 't', '{\"n\": 200}'"
      )
      try await late.publish(1, from: 102)
      try await late.execute("COMMIT")
      _ = try await worker.drain()
      #expect(try await client.books().map { $0[0] + " " + $0[8] } == ["24 4"])
      #expect(try await client.proveAll() == 1)
      #expect(
        try await client.column("SELECT events FROM outbox.proof WHERE events > 0 ORDER BY id") == ["10", "10", "4"]
      )
      // Every pair of theirs is under the proof.
      let late4 = "e.type = 't' AND (e.payload ->> 'n')::int >= 100"
      try await client.execute("DELETE FROM outbox.batch")
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      let expected = try await client.column(
        "SELECT e.id || '/' || p FROM outbox.event e, generate_series(1, 2) p WHERE \(late4) ORDER BY 1"
      )
      #expect(expected.count == 8)
      #expect(Set(try await client.missing()).isSuperset(of: expected))
      #expect(try await client.missing().count == 48)
    }
  }

  /// The proof follows the cut through a backlog that is taken a part at a time, wherever either of them stops.
  @Test func backlogTakenInPartsIsProvedInParts() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      var generator = SeededGenerator(seed)
      let ((worker, _), late) = (try await prepared(database), database.client())
      let client = worker.client
      for round in 0..<6 {
        try await late.execute("BEGIN")
        try await late.publish(3)
        for _ in 0..<5 { try await client.publish(.random(in: 1...30, using: &generator)) }
        if round % 2 == 0 { try await late.execute("COMMIT") }
        var idle = 0
        while idle < 2 {
          let cut = try await worker.cut(events: .random(in: 1...40, using: &generator), direct: 0)
          idle = cut == nil ? idle + 1 : 0
          let events = try await client.int("SELECT coalesce(sum(events), 0) FROM outbox.position")
          if Bool.random(using: &generator) {
            _ = try await client.proveAll(
              .random(in: 1...25, using: &generator),
              steps: .random(in: 1...3, using: &generator)
            )
          }
          let books = try await client.books()[0]
          #expect(books[0] == "\(events)" && books[1] == "\(2 * events)" && books[6] == "0", "round \(round): \(books)")
        }
        if round % 2 == 1 { try await late.execute("COMMIT") }
      }
      _ = try await worker.drain()
      _ = try await client.proveAll(7)
      let count = try await client.int("SELECT count(*) FROM outbox.event")
      #expect(try await client.books().map { "\($0[0]) \($0[1]) \($0[8])" } == ["\(count) \(2 * count) 0"])
    }
  }

  /// What was delivered or dead once is settled, whatever becomes of its history.
  @Test func historyDeletedLaterAndReplaysAreNoLoss() async throws {
    try await withDatabase { database in
      let (worker, endpoints) = try await prepared(database)
      let client = worker.client
      try await client.publish(10)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(try await client.proveAll() == 1)
      #expect(try await client.int("SELECT outbox.replay(\(endpoints[0]), now() - interval '1 hour')") == 10)
      try await client.execute("DELETE FROM outbox.attempt; DELETE FROM outbox.delivery")
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await client.books() == [["10", "20", "20", "0", "0", "0", "0", "1", "0"]])
      #expect(try await client.missing() == [])
    }
  }

  /// What is owed to an endpoint that is taken away leaves the books; the rest stays.
  @Test func deletedEndpointIsOwedNothing() async throws {
    try await withDatabase { database in
      let (worker, endpoints) = try await prepared(database)
      let client = worker.client
      try await client.publish(10)
      _ = try await worker.cut(direct: 0)
      #expect(try await client.proveAll() == 1)
      try await client.execute("DELETE FROM outbox.delivery WHERE endpoint_id = \(endpoints[0]) AND seq < 5")
      #expect(try await client.int("SELECT outbox.delete_endpoint(\(endpoints[0]), discard_waiting => true)") == 8)
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await client.books() == [["10", "18", "0", "10", "0", "8", "0", "1", "0"]])
    }
  }

  /// A period begins and ends; what lies outside is not counted, and what is missing there is told all the same.
  @Test func periodHasTwoEnds() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      for day in [9, 2, 0] {
        try await client.publish(10 + day)
        // Only the owner of the schema could; it stands for time gone by.
        try await client.execute(
          "UPDATE outbox.event SET created_at = created_at - interval '\(day) days' WHERE created_at > now() - interval '1 hour'"
        )
        _ = try await worker.drain()
        if day > 0 { #expect(try await client.proveAll() == 1) }
      }
      func events(_ since: String, _ until: String?) async throws -> [Int?] {
        try await client.store { store in
          try store.reconcile(try store.period(since: since, until: until)).map { $0.figures?.events }.filter {
            $0 != nil
          }
        }
      }
      #expect(try await events("30 days", nil) == [41])
      #expect(try await events("-infinity", "1 day") == [31])
      #expect(try await events("3 days", "1 day") == [12])
      #expect(try await events("1 day", nil) == [10])
      let noon = try await client.value("SELECT (now() - interval '9 days 12 hours')::text")!
      #expect(try await events(noon, "5 days") == [19])
      #expect(try await events("8 days", "7 days") == [0])
      for (since, until, state) in [
        ("2 days", "3 days", "22023"), ("yesteryear", nil, "22007"), ("1 day", "2026-02-30", "22008"),
      ] {
        await #expect { _ = try await events(since, until) } throws: { ($0 as? PostgresError)?.sqlState == state }
      }
      // Lost nine days ago, and asked of the last hour.
      try await client.execute("DELETE FROM outbox.batch WHERE id = (SELECT min(id) FROM outbox.batch)")
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      let found = try await client.findings().filter { $0.severity == "critical" }
      #expect(found.map(\.subject) == ["38 of other times"])
      #expect(try await client.rows(found[0].statements[0]).count == 38)
      #expect(try await client.rows(found[0].statements[1]).count == 38)
      #expect(try await client.findings().filter { $0.severity == "critical" }.isEmpty)
    }
  }

  /// Few events, and young: they stay out of the ledger for a while, so that it has few rows, and are counted all the same.
  @Test func youngEventsAreCountedWithoutTheLedger() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      try await client.publish(30)
      _ = try await worker.drain()
      #expect(try await client.store { try $0.prove() } == 0)
      #expect(try await client.books() == [["30", "60", "0", "0", "60", "0", "0", "0", "30"]])
      // So many that a row is full.
      #expect(try await client.rows("SELECT events FROM outbox.prove(20)") == [["20"]])
      #expect(try await client.rows("SELECT events FROM outbox.prove(20)") == [])
      #expect(try await client.books() == [["30", "60", "0", "0", "60", "0", "0", "1", "10"]])
      let partly = "SELECT events, complete FROM outbox.conservation('-infinity', max_events => 5)"
      #expect(try await client.rows(partly) == [["25", "f"]])
      #expect(
        try await client.findings("max_events => 5").first { $0.finding == "conservation" }?.detail.contains(
          "is not counted here"
        ) == true
      )
      for wrong in ["0", "NULL", "10, NULL", "10, '-1 s'", "10, '0 s', 0"] {
        #expect(try await client.refusal("SELECT outbox.prove(\(wrong))").sqlState == "22023")
      }
    }
  }

  /// A row has no more pairs than can be looked at in a moment, whatever the fan-out; but always an event.
  @Test func wideEventsMakeShortRows() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      try await client.addEndpoint("event_types => '{wide}'")
      try await client.store { try $0.stampSubscriptions() }
      for type in ["t", "t", "t", "wide", "t"] { try await client.publish(1, type: type) }
      _ = try await worker.drain()
      var rows: [String] = []
      while let row = try await client.value("SELECT events || ' ' || pairs FROM outbox.prove(10, '0 s', 4)") {
        rows.append(row)
      }
      #expect(rows == ["2 4", "1 2", "1 3", "1 2"])
      #expect(try await client.value("SELECT events || ' ' || pairs FROM outbox.prove(10, '0 s', 2)") == nil)
      try await client.publish(2, type: "wide")
      _ = try await worker.drain()
      #expect(try await client.value("SELECT events || ' ' || pairs FROM outbox.prove(10, '0 s', 2)") == "1 3")
      #expect(try await client.missing() == [])
    }
  }

  @Test func secondProverHasNothingToDo() async throws {
    try await withDatabase { database in
      let ((worker, _), other) = (try await prepared(database), database.client())
      try await worker.client.publish(5)
      _ = try await worker.drain()
      try await other.execute("BEGIN; SELECT * FROM outbox.prove(5)")
      #expect(try await worker.client.proveAll() == 0)
      try await other.execute("COMMIT")
      #expect(try await worker.client.books().map { $0[7] } == ["1"])
    }
  }

  /// Somebody strikes the newest rows: that part is proved anew. Or all: the proof begins anew, and says so.
  @Test func ledgerThatLostRowsGoesOn() async throws {
    try await withDatabase { database in
      let (worker, _) = try await prepared(database)
      let client = worker.client
      for _ in 0..<3 {
        try await client.publish(10)
        _ = try await worker.drain()
        #expect(try await client.proveAll() == 1)
      }
      try await client.execute("DELETE FROM outbox.proof WHERE id >= (SELECT max(id) - 1 FROM outbox.proof)")
      #expect(try await client.books().map { "\($0[0]) \($0[8])" } == ["30 20"])
      #expect(try await client.proveAll() == 1)
      #expect(try await client.books().map { "\($0[0]) \($0[8])" } == ["30 0"])
      try await client.execute("DELETE FROM outbox.proof")
      #expect(try await client.books().map { "\($0[0]) \($0[8])" } == ["0 0"])
      #expect(try await client.proveAll() == 1)
      try await client.publish(10)
      _ = try await worker.drain()
      #expect(try await client.proveAll() == 1)
      #expect(try await client.books().map { "\($0[0]) \($0[6])" } == ["10 0"])
      #expect(
        try await client.findings().first { $0.finding == "conservation" }?.detail.contains("the proof begins") == true
      )
    }
  }

  /// Transaction ids of before mean nothing after a reanchor: the proof begins there.
  @Test func proofBeginsAnewWithAReanchor() async throws {
    try await withDatabase { database in
      let (worker, endpoints) = try await prepared(database)
      let client = worker.client
      try await client.publish(10)
      _ = try await worker.cut(events: 6, direct: 0)
      #expect(try await client.proveAll() == 1)
      #expect(try await client.int("SELECT outbox.reanchor('last_cut')") == 4)
      #expect(try await client.books() == [["0", "0", "0", "0", "0", "0", "0", "0", "0"]])
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      let after = try await Worker(database)
      try await client.publish(5, from: 100)
      _ = try await after.drain()
      // The four were cut anew, for subscriptions that nobody can be certain of.
      #expect(try await client.books() == [["9", "10", "0", "0", "10", "0", "0", "0", "9"]])
      #expect(try await client.proveAll() == 1)
      #expect(try await client.books() == [["9", "10", "0", "0", "10", "0", "0", "1", "0"]])
      _ = endpoints
    }
  }

  private func prepared(_ database: Database) async throws -> (Worker, [Int64]) {
    let worker = try await Worker(database)
    let endpoints = [try await worker.client.addEndpoint(), try await worker.client.addEndpoint()]
    try await worker.client.store { try $0.stampSubscriptions() }
    return (worker, endpoints)
  }

  private func waiting(_ client: Client) async throws -> [String] {
    try await client.column("SELECT event_id || '/' || endpoint_id FROM outbox.delivery")
  }

  private func deliverAll(_ worker: Worker, _ endpoints: [Int64]) async throws {
    while true {
      let claimed = try await worker.claim(endpoints)
      if claimed.isEmpty { return }
      try await worker.record(claimed.map { $0.outcome() })
    }
  }
}

extension Client {
  /// Goes on with the proof until there is nothing to do, however young, or so many steps are done. Returns the number of
  /// new rows; rows that were due again, on a slow machine, are not counted.
  @discardableResult
  func proveAll(_ maxEvents: Int = 10_000, steps: Int = .max) async throws -> Int {
    var (done, new) = (0, 0)
    while done < steps,
      let isNew = try await value("SELECT proved_at = began_at FROM outbox.prove(\(maxEvents), '0 s')")
    {
      done += 1
      new += isNew == "t" ? 1 : 0
    }
    return new
  }

  /// Events, pairs, delivered, waiting, in flight, dead, missing; rows of the ledger, and events beside it.
  func books() async throws -> [[String]] {
    try await rows(
      """
      SELECT events, pairs, delivered, waiting, in_flight, dead, missing, rows, unproved FROM outbox.conservation('-infinity')
      """
    ).map { $0.map { $0 ?? "NULL" } }
  }

  /// What the proof names as missing, sorted.
  func missing() async throws -> [String] {
    try await column("SELECT unnest(missing_pairs) FROM outbox.conservation('-infinity', max_named => 1000000)")
      .sorted()
  }
}
