import Foundation
import OutboxStore
import Testing

/// What a cut costs by the number of endpoints, in buffers.
@Suite struct FanOutTests {
  /// Of 10,000 endpoints of other types, other tenants, and other filters, 3 match.
  @Test func endpointsThatDoNotMatchCostNothing() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      for _ in 0..<3 { try await client.addEndpoint("event_types => '{t}', tenant => 'mine'") }
      try await addOthers(client, 1...7)
      try await client.publish(5_000)  // the log's own indexes shall have their height
      _ = try await worker.drain()
      let few = try await cost(worker)
      try await addOthers(client, 8...9_997)
      try await client.execute("VACUUM ANALYZE outbox.endpoint, outbox.subscription")
      let many = try await cost(worker)
      print("buffers of a cut of 500: 10 endpoints: \(few), 10,000: \(many)")
      // A level more in the index of subscriptions, for each pattern of one type.
      #expect(many <= few + 100)
    }
  }

  /// Endpoints that ask for the type and whose filter refuses are read from the index of subscriptions alone.
  @Test func refusedEndpointsAreNotRead() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint("event_types => '{t}', tenant => 'mine', filter => '$.payload.n > 0'")
      try await client.execute(
        """
        INSERT INTO outbox.endpoint (url, event_types, tenant, filter)
        SELECT 'https://example.com/' || n, '{t}', 'mine', '$.payload.n < 0' FROM generate_series(1, 2000) n;
        """
      )
      try await client.execute("VACUUM ANALYZE outbox.endpoint, outbox.subscription")
      await client.session.disconnect()
      _ = try await worker.drain()
      try await publish(client, 9)
      let reads = "SELECT coalesce(sum(idx_scan + seq_scan), 0) FROM pg_stat_user_tables WHERE relname = 'endpoint'"
      try await client.flushStatistics()
      let before = try await client.int(reads)
      #expect(try await worker.cut()?.pairs.count == 9)
      try await client.flushStatistics()
      #expect(try await client.int(reads) - before <= 2)
    }
  }

  private func addOthers(_ client: Client, _ numbers: ClosedRange<Int>) async throws {
    try await client.execute(
      """
      INSERT INTO outbox.endpoint (url, event_types, tenant, filter)
      SELECT 'https://example.com/' || n,
        CASE WHEN n % 3 = 0 THEN ARRAY['t'] ELSE ARRAY['other.' || n, 'other.' || n || '.*'] END,
        CASE WHEN n % 3 = 0 THEN 'tenant ' || n ELSE 'mine' END,
        CASE WHEN n % 2 = 0 THEN '$.payload.n > 1'::jsonpath END
      FROM generate_series(\(numbers.lowerBound), \(numbers.upperBound)) n
      """
    )
  }

  private func publish(_ client: Client, _ count: Int) async throws {
    try await client.execute(
      """
      INSERT INTO outbox.event (type, tenant, payload)
      SELECT 't', 'mine', jsonb_build_object('n', n) FROM generate_series(1, \(count)) n
      """
    )
  }

  /// The median of a few: the caches are warm, and where a page of the batches begins is chance.
  private func cost(_ worker: Worker) async throws -> Int {
    var costs: [Int] = []
    for _ in 0..<7 {
      try await publish(worker.client, 500)
      let lines = try await worker.client.column(
        "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM outbox.cut(\(worker.id), 500, 5000, 5000, 100000000)"
      )
      costs.append(try #require(PlanLog.buffers(in: lines.joined(separator: "\n"))))
    }
    return costs.sorted()[3]
  }
}
