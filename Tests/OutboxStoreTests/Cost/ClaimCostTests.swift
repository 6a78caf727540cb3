import Foundation
import OutboxStore
import Postgres
import Testing

/// Retries under a transaction that holds back the cleaning of dead rows: dead index entries gather at the low end.
@Suite struct ClaimCostTests {
  @Test func claimFromItsFloorStaysFlatBehindALongTransaction() async throws {
    try await withDatabase { database in
      let (holder, worker) = (database.client(), try await Worker(database))
      let endpoint = try await worker.client.addEndpoint("failure_threshold => 1000000, max_attempts => 1000")
      try await worker.client.publish(7_000)
      while try await worker.cut(direct: 0) != nil {}
      try await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
      var floor: String? = nil
      var costs: [Int] = []
      for _ in 0..<60 {
        try await worker.client.execute("BEGIN")
        costs.append(try await buffersOfClaim(worker, endpoint, floor))
        try await worker.client.execute("ROLLBACK")
        let claimed = try await worker.claim([endpoint], slots: 100)
        floor = try await worker.client.value(
          "SELECT max(due_at) FROM outbox.delivery WHERE dispatcher_id = \(worker.id)"
        )
        try await worker.record(
          claimed.map {
            var outcome = $0.outcome(.failed)
            outcome.retryIn = .seconds(3600)
            return outcome
          }
        )
      }
      let (early, late) = (costs[5..<15].sorted()[5], costs[50..<60].sorted()[5])
      print("buffers of a claim of 100, median: rounds 5 to 14: \(early), rounds 50 to 59: \(late)")
      #expect(Double(late) < Double(early) * 1.3)
      try await holder.execute("ROLLBACK")
    }
  }

  /// A rate limit's bucket is written with every claim, and leaves nothing behind: it is one page, in place.
  @Test func claimUnderARateLimitStaysFlatBehindALongTransaction() async throws {
    try await withDatabase { database in
      let (holder, worker) = (database.client(), try await Worker(database))
      let endpoint = try await worker.client.addEndpoint("rate_limit => 100000, max_in_flight => 50")
      try await worker.client.publish(5_000)
      while try await worker.cut() != nil {}
      try await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
      var floor: Timestamp? = nil
      var floorText: String? = nil
      var costs: [Int] = []
      for _ in 0..<60 {
        try await worker.client.execute("BEGIN")
        costs.append(try await buffersOfClaim(worker, endpoint, floorText))
        try await worker.client.execute("ROLLBACK")
        let claim = try await worker.claimOrWait([endpoint], floors: [floor])
        // Its tokens were the limit, so the next claim begins where this one ended.
        #expect(claim.deliveries.count == 50 && claim.again[endpoint] != nil)
        floor = claim.deliveries.map(\.dueAt).max()
        floorText = try await worker.client.value(
          "SELECT max(due_at) FROM outbox.delivery WHERE dispatcher_id = \(worker.id)"
        )
        try await worker.record(claim.deliveries.map { $0.outcome() })
      }
      let (early, late) = (costs[5..<15].sorted()[5], costs[50..<60].sorted()[5])
      print("buffers of a claim of 50 under a rate limit, median: rounds 5 to 14: \(early), rounds 50 to 59: \(late)")
      #expect(Double(late) < Double(early) * 1.3)
      #expect(try await worker.client.int("SELECT pg_relation_size('outbox.rate_\(endpoint)')") == 8192)
      #expect(try await worker.client.int("SELECT count(*) FROM pg_class WHERE relname LIKE 'rate\\_%'") == 1)
      try await holder.execute("ROLLBACK")
    }
  }

  private func buffersOfClaim(_ worker: Worker, _ endpoint: Int64, _ floor: String?) async throws -> Int {
    let from = floor.map { "'\($0)'::timestamptz" } ?? "NULL"
    let lines = try await worker.client.column(
      """
      EXPLAIN (ANALYZE, BUFFERS)
      SELECT * FROM outbox.claim(\(worker.id), '{\(endpoint)}', '{100}', ARRAY[\(from)]::timestamptz[])
      """
    )
    return try #require(PlanLog.buffers(in: lines.joined(separator: "\n")))
  }
}
