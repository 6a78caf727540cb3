import Foundation
import OutboxStore
import Postgres
import Testing

/// Costs, counted in buffers rather than time.
@Suite struct BufferTests {
  /// The b-tree of a million has a level more than that of five hundred, in each of the indexes it visits.
  @Test func cutCostsTheSameAtAnyBacklog() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("event_types => '{few}'")
      for _ in 0..<3 {  // fills the session's caches
        try await worker.client.publish(500)
        _ = try await worker.drain()
      }
      try await worker.client.publish(500)
      try await worker.client.execute("VACUUM ANALYZE outbox.event")
      let small = try await buffersOfCut(worker)

      try await worker.client.execute(
        "INSERT INTO outbox.event (type, payload) SELECT 'many', '1' FROM generate_series(1, 1000000)"
      )
      try await worker.client.execute("VACUUM ANALYZE outbox.event")
      _ = try await worker.cut(events: 10)
      let atTheBeginning = try await buffersOfCut(worker)
      _ = try await worker.cut(events: 400_000)
      let midway = try await buffersOfCut(worker)
      print("buffers of a cut of 500: backlog 500: \(small), 1,000,000: \(atTheBeginning), midway: \(midway)")
      #expect(abs(atTheBeginning - midway) < 100)
      // One level more in the index by id, 500 look-ups.
      #expect(atTheBeginning < small + 600)
      #expect(try await worker.client.int("SELECT events FROM outbox.position ORDER BY id DESC LIMIT 1") == 500)
    }
  }

  /// The search alone, without reading the events: index-only, a handful of pages.
  @Test func searchReadsAHandfulOfPages() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, payload) SELECT 'many', '1' FROM generate_series(1, 100000)"
      )
      try await worker.client.execute("VACUUM ANALYZE outbox.event")
      try await worker.client.execute("LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0")
      try await worker.client.execute(
        "SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on; SET auto_explain.log_buffers = on"
      )
      for _ in 0..<3 { _ = try await worker.cut() }
      var log = PlanLog(database)
      let search = try #require(try log.next().last { $0.contains("array_agg(e.tx ORDER BY") })
      let buffers = try #require(PlanLog.buffers(in: search))
      print("buffers of the search for 500 events: \(buffers)")
      #expect(buffers <= 40)
    }
  }

  /// A transaction that holds back the cleaning of dead rows does not slow the happy path down: it leaves none.
  @Test func longTransactionDoesNotSlowCutAndRecordDown() async throws {
    try await withDatabase { database in
      let (holder, worker) = (database.client(), try await Worker(database))
      try await worker.client.addEndpoint()
      try await worker.client.publish(20_000)
      try await worker.client.execute("VACUUM ANALYZE outbox.event")
      try await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
      var costs: [Int] = []
      for _ in 0..<100 {
        try await worker.client.publish(100)
        costs.append(try await costOfOneRound(worker))
      }
      let (early, late) = (costs[10..<30].sorted()[10], costs[80..<100].sorted()[10])
      print("buffers of cut and record, median: rounds 10 to 29: \(early), rounds 80 to 99: \(late)")
      #expect(Double(late) < Double(early) * 1.15)
      try await holder.execute("ROLLBACK")
    }
  }

  private func costOfOneRound(_ worker: Worker) async throws -> Int {
    let hits = "SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read) FROM pg_statio_user_tables"
    let flush = worker.client.flushStatistics
    try await flush()
    let before = try await worker.client.int(hits)
    guard let cut = try await worker.cut(events: 100), let batch = cut.batch else { throw Unexpected("no cut") }
    try await worker.record(cut.outcomes(), finished: [batch])
    try await flush()
    return try await worker.client.int(hits) - before
  }

  private func buffersOfCut(_ worker: Worker) async throws -> Int {
    let lines = try await worker.client.column(
      "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM outbox.cut(\(worker.id), 500, 500, 500, 10000000)"
    )
    return try #require(PlanLog.buffers(in: lines.joined(separator: "\n")))
  }
}

extension Client {
  /// Makes this session's counters visible and forgets those it has read.
  var flushStatistics: @Sendable () async throws -> Void {
    {
      let version = try await session.withConnection { $0.serverVersion }
      if version >= 150_000 {
        try await execute("SELECT pg_stat_force_next_flush()")
      }
      try await execute("SELECT pg_stat_clear_snapshot()")
    }
  }
}
