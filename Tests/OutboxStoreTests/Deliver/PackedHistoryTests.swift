import Foundation
import OutboxStore
import Postgres
import Testing

/// History of first tries that succeeded is packed, many to a row, and read as if it were not.
@Suite struct PackedHistoryTests {
  private static let all = """
    SELECT concat_ws(' ', event_id, endpoint_id, batch_id, dispatcher_id, outcome, duration_ms, attempt, status, error)
    FROM outbox.attempt ORDER BY 1
    """
  private static let packed = "SELECT coalesce(sum(cardinality(event_ids)), 0) FROM outbox.attempt_packed"
  private static let single = "SELECT count(*) FROM outbox.attempt_single"

  @Test func whatIsPackedReadsAsARowForEachTry() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      for _ in 0..<2 { try await worker.client.addEndpoint() }
      try await worker.client.publish(10)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes()
      for index in outcomes.indices {
        outcomes[index].duration = .milliseconds(index)
        outcomes[index].status = 200 + index
      }
      outcomes[0].kind = .failed
      outcomes[0].retryIn = .zero
      outcomes[0].error = "no"
      outcomes[1].error = "the answer was too long"
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await worker.client.int(Self.packed) == 18)
      #expect(try await worker.client.int(Self.single) == 2)
      let expected = outcomes.map { outcome in
        var words = ["\(outcome.delivery.event)".lowercased(), "\(outcome.delivery.endpoint)", "\(cut.batch!)"]
        words += [
          "\(worker.id)", outcome.kind.rawValue, "\(outcome.duration.components.attoseconds / 1_000_000_000_000_000)",
        ]
        words += ["1", "\(outcome.status!)"] + (outcome.error.map { [$0] } ?? [])
        return words.joined(separator: " ")
      }
      #expect(try await worker.client.column(Self.all) == expected.sorted())
    }
  }

  @Test func aFewAreNotWorthPacking() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(3)
      let few = try #require(try await worker.cut())
      try await worker.record(few.outcomes(), finished: [few.batch!])
      #expect(try await worker.client.int(Self.packed) == 0)
      #expect(try await worker.client.int(Self.single) == 3)
    }
  }

  /// Half of a batch is recorded, then the dispatcher is lost: the other half is given back, and nothing of the first.
  @Test func whatIsPackedIsNotGivenBack() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      for _ in 0..<2 { try await worker.client.addEndpoint() }
      try await worker.client.publish(20)
      let cut = try #require(try await worker.cut())
      let recorded = Array(cut.outcomes().shuffled()[..<25])
      try await worker.record(recorded)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.in_flight") == 15)
      try await worker.expire()
      #expect(try await worker.client.store { try $0.recover() }.map(\.deliveries) == [15])
      let waiting = try await worker.client.column(
        "SELECT event_id || ' ' || endpoint_id FROM outbox.delivery ORDER BY 1"
      )
      let rest = Set(cut.pairs).subtracting(recorded.map(\.delivery))
      #expect(waiting == rest.map { "\($0.event) \($0.endpoint)".lowercased() }.sorted())
    }
  }

  @Test func aRepetitionOfWhatWasPackedDoesNothing() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(10)
      let cut = try #require(try await worker.cut())
      for again in [false, true] { try await worker.record(cut.outcomes(), finished: [cut.batch!], again: again) }
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.attempt") == 10)
    }
  }

  @Test func historyCanBeChangedByHand() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      try await client.publish(6)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes()
      outcomes[5].kind = .failed
      outcomes[5].retryIn = .seconds(60)
      try await worker.record(outcomes, finished: [cut.batch!])
      let before = try await client.column(Self.all)
      for index in [0, 5] {
        try await client.execute("DELETE FROM outbox.attempt WHERE event_id = '\(cut.pairs[index].event)'")
      }
      let (first, last) = ("\(cut.pairs[0].event)".lowercased(), "\(cut.pairs[5].event)".lowercased())
      let left = before.filter { !$0.hasPrefix(first) && !$0.hasPrefix(last) }
      #expect(left.count == 4)
      #expect(try await client.column(Self.all) == left)
      let second = "\(cut.pairs[1].event)"
      try await client.execute(
        """
        UPDATE outbox.attempt SET status = 299 WHERE event_id = '\(second)';
        INSERT INTO outbox.attempt (event_id, endpoint_id, dispatcher_id, outcome, attempt) VALUES ('\(first)', 1, 7, 'failed', 3)
        """
      )
      let status = "SELECT status FROM outbox.attempt WHERE event_id = '\(second)'"
      #expect(try await client.column(status) == ["299"])
      let inserted = "SELECT attempt FROM outbox.attempt WHERE event_id = '\(first)' AND at > now() - interval '1 min'"
      #expect(try await client.column(inserted) == ["3"])
      try await client.execute("DELETE FROM outbox.attempt")
      #expect(try await client.column(Self.all) == [])
    }
  }

  /// The log may be kept for a shorter time than history: then its tries are shown all the same, and each once.
  @Test func historyOutlivesTheLog() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      try await publish(client, 10, from: "now() - interval '3 days'")
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(try await client.int(Self.packed) == 10)
      try await client.execute("UPDATE outbox.setting SET value = '1 day' WHERE name = 'event_retention'")
      let before = try await client.column(Self.all)
      #expect(before.count == 10)
      try await client.execute("DELETE FROM outbox.event WHERE id < '\(cut.pairs[5].event)'")
      #expect(try await client.column(Self.all) == before)
      let one = "SELECT count(*) FROM outbox.attempt WHERE event_id = "
      #expect(try await client.int(one + "'\(cut.pairs[0].event)'") == 1)
      #expect(try await client.int(one + "'\(cut.pairs[9].event)'") == 1)
    }
  }

  /// What it costs to ask for the tries of one event does not grow with history.
  @Test func aLookUpOfOneEventIsFlat() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      var costs: [Int] = []
      for days in [2, 1] {
        try await publish(client, 20_000, from: "now() - interval '\(days) days'", apart: "10 ms")
        for cut in try await worker.drain(events: 2_000) {
          if let batch = cut.batch { try await worker.record(cut.outcomes(), finished: [batch]) }
        }
        try await client.execute("VACUUM ANALYZE outbox.event, outbox.attempt_single, outbox.attempt_packed")
        let event = try await client.value("SELECT id FROM outbox.event ORDER BY id OFFSET 5000 LIMIT 1")!
        let look = "SELECT * FROM outbox.attempt WHERE event_id = '\(event)'"
        #expect(try await client.rows(look).count == 1)
        let plan = try await client.column("EXPLAIN (ANALYZE, BUFFERS) \(look)").joined(separator: "\n")
        costs.append(try #require(PlanLog.buffers(in: plan)))
      }
      print("buffers of looking up one event's tries: of 20,000 \(costs[0]), of 40,000 \(costs[1])")
      #expect(costs[1] <= costs[0] + 4 && costs[0] < 100)
    }
  }

  /// Events with ids of the past, as a superuser can make them.
  private func publish(_ client: Client, _ count: Int, from: String, apart: String = "1 ms") async throws {
    try await client.execute(
      """
      INSERT INTO outbox.event (id, type, payload)
      SELECT outbox.uuid_floor(date_trunc('hour', \(from)) + i * interval '\(apart)'), 't', to_jsonb(i) FROM generate_series(1, \(count)) i
      """
    )
  }
}
