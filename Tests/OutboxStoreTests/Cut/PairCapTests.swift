import Foundation
import OutboxStore
import Postgres
import Testing

/// A cut makes about 20,000 pairs at most, whatever the number of events it may take.
@Suite struct PairCapTests {
  /// 300 endpoints of one type, 20 of another: caps fall in the middle of transactions, late ones among them.
  @Test func everyPairComesExactlyOnceWhenTheCapCutsATransactionInTwo() async throws {
    try await withDatabase { database in
      let (worker, late) = (try await Worker(database), database.client())
      try await addEndpoints(worker.client, 300, type: "wide")
      try await addEndpoints(worker.client, 20, type: "narrow")
      try await late.execute("BEGIN")
      try await late.publish(100, type: "wide")
      try await worker.client.execute(
        """
        INSERT INTO outbox.event (type, payload)
        SELECT CASE WHEN n % 5 = 0 THEN 'narrow' WHEN n % 7 = 0 THEN 'nobody' ELSE 'wide' END, '1' FROM generate_series(1, 300) n
        """
      )
      var (cuts, parked) = ([Cut](), 0)
      func drain() async throws {
        for cut in try await worker.drain(events: 500) {
          cuts.append(cut)
          parked += cut.parked
          #expect(cut.pairs.count + cut.parked <= 20_000)
        }
      }
      try await drain()
      #expect(cuts.count >= 4 && cuts.dropLast().allSatisfy { $0.more })
      try await late.execute("COMMIT")
      try await worker.client.publish(10, type: "narrow")
      try await drain()
      // What went straight out is in the batches, all else in delivery.
      let books = try await worker.client.rows(
        """
        WITH pair AS (
          SELECT u.event, u.endpoint FROM outbox.batch b CROSS JOIN LATERAL unnest(b.event_ids, b.endpoint_ids) u(event, endpoint)
          UNION ALL SELECT event_id, endpoint_id FROM outbox.delivery)
        SELECT count(*), count(DISTINCT (event, endpoint)),
          (SELECT sum(CASE type WHEN 'wide' THEN 300 WHEN 'narrow' THEN 20 ELSE 0 END) FROM outbox.event) FROM pair
        """
      )[0]
      #expect(books[0] == books[1] && books[1] == books[2])
      #expect(cuts.map(\.events).reduce(0, +) == 410)
      #expect(try await worker.client.int("SELECT sum(events) FROM outbox.position") == 410)
      #expect(cuts.flatMap(\.pairs).count + parked == Int(books[0]!))
    }
  }

  @Test func oneEventIsAlwaysCut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await addEndpoints(worker.client, 21_000, type: "wide")
      try await worker.client.publish(3, type: "wide")
      for more in [true, true, false] {
        let cut = try #require(try await worker.cut())
        #expect(cut.events == 1 && cut.more == more && cut.pairs.count + cut.parked == 21_000)
      }
      #expect(try await worker.cut() == nil)
    }
  }

  /// Filters are evaluated for every pair, so they count whether they match or not.
  @Test func pairsThatAFilterRefusesCount() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await addEndpoints(worker.client, 5_000, type: "wide", filter: "$.payload.n == 3")
      try await worker.client.publish(6, type: "wide")
      #expect(try await worker.cut()?.events == 4)
      let rest = try #require(try await worker.cut())
      #expect(rest.events == 2 && !rest.more && rest.pairs.isEmpty)
      #expect(try await worker.client.int("SELECT cardinality(event_ids) FROM outbox.batch") == 5_000)
    }
  }

  private func addEndpoints(_ client: Client, _ count: Int, type: String, filter: String? = nil) async throws {
    try await client.execute(
      """
      INSERT INTO outbox.endpoint (url, event_types, filter)
      SELECT 'https://example.com/' || n, ARRAY['\(type)', '\(type).*'], \(filter.map { "'\($0)'" } ?? "NULL")
      FROM generate_series(1, \(count)) n
      """
    )
  }
}
