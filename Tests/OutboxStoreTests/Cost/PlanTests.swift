import Foundation
import OutboxStore
import Postgres
import Testing

/// Plans of the hot statements, as auto_explain saw them run: at an empty log, and at a backlog of a million, both with the
/// plans a session made while all was empty and with fresh ones.
@Suite struct PlanTests {
  @Test func hotStatementsUseIndexesOnly() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      var log = PlanLog(database)
      let plain = try await worker.client.addEndpoint("failure_threshold => 3")
      let ordered = try await worker.client.addEndpoint(
        "ordered => true, rate_limit => 100000, on_dead_letter => 'hold'"
      )
      for filter in ["$.payload.n > 10", "strict $.payload.missing"] {
        try await worker.client.addEndpoint("filter => '\(filter)', event_types => '{t, nobody}'")
      }
      try await worker.client.execute(
        """
        LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
        SET auto_explain.log_level = log
        """
      )
      try await everyHotStatement(worker, plain, ordered)
      try check(log.next(), "empty")

      try await database.client().execute(
        """
        INSERT INTO outbox.event (type, payload) SELECT 'nobody', '1' FROM generate_series(1, 1000000);
        INSERT INTO outbox.delivery (event_id, endpoint_id, due_at)
        SELECT id, \(plain), now() + interval '1 day' FROM outbox.event LIMIT 200000;
        """
      )
      try await everyHotStatement(worker, plain, ordered)
      try check(log.next(), "backlog, plans made while empty")
      try await database.client().execute(
        "VACUUM ANALYZE outbox.event, outbox.delivery, outbox.attempt_single, outbox.attempt_packed"
      )
      try await everyHotStatement(worker, plain, ordered)
      try check(log.next(), "backlog, fresh plans")
    }
  }

  /// cut with direct and parked pairs, claim, record of every kind, waiting.
  private func everyHotStatement(_ worker: Worker, _ plain: Int64, _ ordered: Int64) async throws {
    try await worker.client.publish(20, key: "a")
    var cut: Cut?
    try await eventually("a cut") {
      cut = try await worker.cut(events: 2_000)
      return cut?.batch != nil || cut?.events == 2_000
    }
    guard let cut else { return }
    var outcomes = cut.outcomes()
    for (index, kind) in [Outcome.Kind.failed, .failed, .returned].enumerated() where index < outcomes.count {
      outcomes[index].kind = kind
      outcomes[index].retryIn = .zero
    }
    if outcomes.count > 4 { outcomes[4].reason = "exhausted" }
    try await worker.record(outcomes, finished: cut.batch.map { [$0] } ?? [])
    _ = try await worker.client.store { try $0.waiting() }
    let claimed = try await worker.claim([plain, ordered], slots: 5)
    try await worker.record(claimed.map { $0.outcome() })
  }

  private func check(_ plans: [String], _ when: String) throws {
    let tables = "event|endpoint|subscription|position|batch|delivery|attempt|dead_letter|dispatcher"
    let sequential = try Regex("(Seq Scan|Bitmap Heap Scan) on (\(tables))[a-z_0-9]*")
    for plan in plans {
      #expect(try sequential.firstMatch(in: plan) == nil, "\(when): \(plan)")
    }
    let searches = plans.filter { $0.contains("array_agg(e.tx ORDER BY") }
    #expect(!searches.isEmpty)
    for search in searches {
      #expect(search.contains("Index Only Scan using event_"), "\(when): \(search)")
      #expect(!search.contains("  Index Scan"), "\(when): \(search)")
      #expect(!search.contains("->  Sort\n") || !search.contains("Sort Key: event"), "\(when): \(search)")
    }
    // Statistics of a moment when nobody holds anything say that the holder finds a single row. By the holder, each outcome
    // would be compared with all that is held.
    let finishing = plans.filter { $0.contains("DELETE FROM outbox.delivery") }
    #expect(!finishing.isEmpty)
    for plan in finishing { #expect(!plan.contains("delivery_claimed"), "\(when): \(plan)") }
    for name in [
      "outbox.cut", "outbox.claim", "INSERT INTO outbox.attempt_single", "INSERT INTO outbox.attempt_packed",
      "INSERT INTO outbox.batch", "outbox.judge",
      "outbox.filter_document", "INSERT INTO outbox.filter_failure",
    ] {
      #expect(plans.contains { $0.contains(name) }, "\(when): no plan of \(name) was seen")
    }
  }
}
